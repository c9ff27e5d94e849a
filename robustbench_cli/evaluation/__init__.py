"""Evaluation: the loop that drives attacks, the verdicts, and the files they are kept in."""
