"""Honest models of MNIST and of the CIFAR-10 JPEGs."""

import runpy
from pathlib import Path

from torch import nn

trained = runpy.run_path(str(Path(__file__).parents[1] / "nets.py"))["trained"]


def mnist_standard() -> nn.Module:
    """Three convolutions for MNIST, trained on clean images."""
    return trained("mnist-standard")


def mnist_fast_at() -> nn.Module:
    """Three convolutions for MNIST, trained with Fast-AT."""
    return trained("mnist-fast-at")


def cifar_standard() -> nn.Module:
    """Three convolutions for CIFAR-10, trained on clean images."""
    return trained("cifar-standard")


def cifar_fast_at() -> nn.Module:
    """Three convolutions for CIFAR-10, trained with Fast-AT."""
    return trained("cifar-fast-at")
