"""Models that round their images, so that the gradient is zero or far too steep."""

import math
import runpy
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

trained = runpy.run_path(str(Path(__file__).parents[1] / "nets.py"))["trained"]


class Levels(nn.Module):
    """A network behind so many grey levels."""

    def __init__(self, net: str, levels: int) -> None:
        super().__init__()
        self.net = trained(net)
        self.steps = levels - 1

    def forward(self, x: Tensor) -> Tensor:
        return self.net((self.steps * x).round() / self.steps)


def eight_levels() -> nn.Module:
    """Round pixels to eight levels."""
    return Levels("relu-standard", 8)


def four_levels() -> nn.Module:
    """Round pixels to four levels."""
    return Levels("gelu-standard", 4)


def two_levels() -> nn.Module:
    """Round pixels to black and white."""
    return Levels("elu-standard", 2)


class Cosines(nn.Module):
    """A network behind rounded coefficients of the cosine transform, as JPEG rounds them."""

    def __init__(self) -> None:
        super().__init__()
        self.net = trained("leaky-standard")
        rows, columns = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
        basis = 0.5 * torch.cos(math.pi * rows * (2 * columns + 1) / 16)
        basis[0] /= math.sqrt(2)
        self.register_buffer("basis", basis)

    def forward(self, x: Tensor) -> Tensor:
        coefficients = self.basis @ x @ self.basis.T
        rounded = 0.3 * (coefficients / 0.3).round()
        return self.net(self.basis.T @ rounded @ self.basis)


def rounded_cosines() -> nn.Module:
    """Round the image's cosine transform."""
    return Cosines()


class Thermometer(nn.Module):
    """A network behind the count of thresholds that a pixel exceeds (Buckman et al., 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.net = trained("mlp-standard")
        self.register_buffer("marks", torch.arange(0.5, 10) / 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(torch.sigmoid(1e4 * (x[..., None] - self.marks)).mean(-1))


def thermometer() -> nn.Module:
    """Encode pixels by ten steep thresholds."""
    return Thermometer()


class Median(nn.Module):
    """A network behind the median of each neighbourhood, picked by a one-hot mask."""

    def __init__(self) -> None:
        super().__init__()
        self.net = trained("softplus-standard")

    def forward(self, x: Tensor) -> Tensor:
        patches = F.unfold(F.pad(x, (1, 1, 1, 1)), 3)
        middle = patches.argsort(1)[:, 4:5]
        picked = torch.zeros_like(patches).scatter(1, middle, 1.0) * patches.detach()
        smooth = picked.sum(1).view_as(x)
        return self.net(0.5 * x.detach() + 0.5 * smooth + 1e-3 * x.transpose(-1, -2))


def median() -> nn.Module:
    """Mix the image with its median filter, both cut off from the gradient."""
    return Median()


def mnist_four_levels() -> nn.Module:
    """Round the pixels of MNIST to four levels."""
    return Levels("mnist-standard", 4)
