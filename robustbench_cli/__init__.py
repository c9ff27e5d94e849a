"""advbench: train, attack and report adversarial robustness from one command line."""

__version__ = "0.1.0"
