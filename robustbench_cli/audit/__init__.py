"""Checks of a model and of the attacks' results: signs that a robust accuracy is too high."""
