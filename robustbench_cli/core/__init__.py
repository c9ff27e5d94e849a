"""What everything else is built on: threats, losses, random numbers, registry, errors, files."""
