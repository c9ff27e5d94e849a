"""Models that answer the same image in another way each time."""

import runpy
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

trained = runpy.run_path(str(Path(__file__).parents[1] / "nets.py"))["trained"]


class Noisy(nn.Module):
    """A network behind normal noise."""

    def __init__(self) -> None:
        super().__init__()
        self.net = trained("relu-standard")

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x + 0.15 * torch.randn_like(x))


def input_noise() -> nn.Module:
    """Add noise of standard deviation 0.15 to the image."""
    return Noisy()


class Resizing(nn.Module):
    """A network behind a random size and place (Xie et al., 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.net = trained("gelu-standard")

    def forward(self, x: Tensor) -> Tensor:
        side = int(torch.randint(7, 9, ()))
        small = F.interpolate(x, size=(side, side), mode="bilinear")
        left, top = (int(torch.randint(0, 9 - side, ())) for _ in range(2))
        return self.net(F.pad(small, (left, 8 - side - left, top, 8 - side - top)))


def resize_and_pad() -> nn.Module:
    """Resize the image at random and put it somewhere at random."""
    return Resizing()


class OneOf(nn.Module):
    """An ensemble of which one member answers."""

    def __init__(self) -> None:
        super().__init__()
        names = ("relu-standard", "elu-standard", "mlp-standard")
        self.nets = nn.ModuleList(trained(name) for name in names)

    def forward(self, x: Tensor) -> Tensor:
        return self.nets[int(torch.randint(len(self.nets), ()))](x)


def one_of_three() -> nn.Module:
    """Draw one of three networks for each call."""
    return OneOf()


class Dropping(nn.Module):
    """A network whose features are dropped at random, in evaluation too."""

    def __init__(self) -> None:
        super().__init__()
        self.net = trained("leaky-standard")

    def forward(self, x: Tensor) -> Tensor:
        return self.net.head(F.dropout(self.net.body(x), 0.5, training=True))


def dropped_features() -> nn.Module:
    """Drop half of the features before the last layer."""
    return Dropping()
