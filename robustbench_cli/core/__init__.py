"""The ground floor: threats, losses, gradient ascent, random numbers, registry, errors, files."""
