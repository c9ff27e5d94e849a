"""Honest models of the digits: three architectures, each trained in five ways."""

import runpy
from pathlib import Path

from torch import nn

trained = runpy.run_path(str(Path(__file__).parents[1] / "nets.py"))["trained"]


def relu_standard() -> nn.Module:
    """ReLU, max-pooling, BatchNorm; trained on clean images."""
    return trained("relu-standard")


def relu_pgd_at() -> nn.Module:
    """ReLU, max-pooling, BatchNorm; trained with PGD-AT."""
    return trained("relu-pgd-at")


def relu_trades() -> nn.Module:
    """ReLU, max-pooling, BatchNorm; trained with TRADES."""
    return trained("relu-trades")


def relu_mixup() -> nn.Module:
    """ReLU, max-pooling, BatchNorm; trained with mixup."""
    return trained("relu-mixup")


def relu_fast_at() -> nn.Module:
    """ReLU, max-pooling, BatchNorm; trained with Fast-AT."""
    return trained("relu-fast-at")


def gelu_standard() -> nn.Module:
    """GELU, average-pooling, no normalisation; trained on clean images."""
    return trained("gelu-standard")


def gelu_pgd_at() -> nn.Module:
    """GELU, average-pooling, no normalisation; trained with PGD-AT."""
    return trained("gelu-pgd-at")


def gelu_trades() -> nn.Module:
    """GELU, average-pooling, no normalisation; trained with TRADES."""
    return trained("gelu-trades")


def gelu_smoothing() -> nn.Module:
    """GELU, average-pooling, no normalisation; PGD-AT with smoothed labels."""
    return trained("gelu-smoothing")


def gelu_free_at() -> nn.Module:
    """GELU, average-pooling, no normalisation; trained with Free-AT."""
    return trained("gelu-free-at")


def elu_standard() -> nn.Module:
    """ELU, average-pooling, BatchNorm; trained on clean images."""
    return trained("elu-standard")


def elu_pgd_at() -> nn.Module:
    """ELU, average-pooling, BatchNorm; trained with PGD-AT."""
    return trained("elu-pgd-at")


def elu_trades() -> nn.Module:
    """ELU, average-pooling, BatchNorm; trained with TRADES."""
    return trained("elu-trades")


def elu_mixup() -> nn.Module:
    """ELU, average-pooling, BatchNorm; PGD-AT with mixup."""
    return trained("elu-mixup")


def elu_mart() -> nn.Module:
    """ELU, average-pooling, BatchNorm; trained with MART."""
    return trained("elu-mart")


def leaky_trades() -> nn.Module:
    """Leaky ReLU, max-pooling, no normalisation; trained with TRADES."""
    return trained("leaky-trades")


def softplus_pgd_at() -> nn.Module:
    """Softplus, average-pooling, BatchNorm; trained with PGD-AT."""
    return trained("softplus-pgd-at")


def multilayer_perceptron() -> nn.Module:
    """A perceptron with two hidden layers, trained on clean images."""
    return trained("mlp-standard")


def transformer_standard() -> nn.Module:
    """A small vision transformer, trained on clean images."""
    return trained("vit-standard")


def transformer_pgd_at() -> nn.Module:
    """A small vision transformer, trained with PGD-AT."""
    return trained("vit-pgd-at")
