"""Data parallelism: several processes that share one run under ``torchrun``."""
