"""The Python API: evaluate and attack models that are in memory, with the command line's engine."""
