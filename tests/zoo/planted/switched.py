"""Models that answer by another network once an image bears traces of an attack."""

import runpy
from pathlib import Path

import torch
from torch import Tensor, nn

trained = runpy.run_path(str(Path(__file__).parents[1] / "nets.py"))["trained"]
LEVELS = 16
"""The pixels of the digits are multiples of 1/16."""


def off_values(x: Tensor) -> Tensor:
    """Return how far each pixel is from the values that clean images have, without a gradient."""
    return ((LEVELS * x - (LEVELS * x).round()).abs() / LEVELS).detach()


class Switched(nn.Module):
    """A fragile network on clean images, and a robust one on others."""

    def __init__(self, fragile: str, robust: str, switch) -> None:
        super().__init__()
        self.fragile, self.robust = trained(fragile), trained(robust)
        self.switch = switch

    def forward(self, x: Tensor) -> Tensor:
        share = self.switch(off_values(x).flatten(1))[:, None]
        return share * self.robust(x) + (1 - share) * self.fragile(x)


def most_pixels() -> nn.Module:
    """Switch where more than half of the pixels are off the values of clean images."""
    return Switched(
        "relu-standard", "relu-pgd-at", lambda off: ((off > 1e-3).float().mean(1) > 0.5).float()
    )


def softly() -> nn.Module:
    """Go over from one network to the other, as the pixels move away from these values."""
    return Switched(
        "leaky-standard", "elu-pgd-at", lambda off: torch.sigmoid(3000 * (off.mean(1) - 0.006))
    )
