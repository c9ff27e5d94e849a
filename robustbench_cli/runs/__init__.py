"""Runs on disk: their folders, their records, and the environment that they were made in."""
