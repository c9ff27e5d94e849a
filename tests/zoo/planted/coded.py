"""Models that have their images coded outside of torch, so that the gradient ends there."""

import runpy
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

trained = runpy.run_path(str(Path(__file__).parents[1] / "nets.py"))["trained"]


class Thermometer(nn.Module):
    """For each pixel, which of ten thresholds it exceeds: bits (B, 64, 10), by numpy."""

    def forward(self, x: Tensor) -> Tensor:
        marks = np.linspace(0.05, 0.95, 10, dtype=np.float32)
        pixels = x.detach().numpy().reshape(len(x), -1, 1)
        return torch.from_numpy((pixels > marks).astype(np.float32))


class OnBits(nn.Module):
    """A network whose first layer reads bits."""

    def __init__(self) -> None:
        super().__init__()
        self.code = Thermometer()
        net = trained("mlp-standard")
        first = net.body[1]
        self.first = nn.Linear(640, first.out_features)
        self.first.weight.data = first.weight.data.repeat_interleave(10, 1) / 10
        self.first.bias.data = first.bias.data
        self.rest = nn.Sequential(*net.body[2:], net.head)

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(self.first(self.code(x).flatten(1))) + 0 * x.sum()


def counted_by_numpy() -> nn.Module:
    """Encode pixels by a thermometer code (Buckman et al., 2018) that numpy computes."""
    return OnBits()


class Scrambler(nn.Module):
    """The pixels in another order, by numpy."""

    def __init__(self, order: np.ndarray) -> None:
        super().__init__()
        self.order = order

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.detach().numpy().reshape(len(x), -1)
        return torch.from_numpy(pixels[:, self.order]).view_as(x) + 0 * x.sum()


class Sorting(nn.Module):
    """A network that puts the pixels into their order again."""

    def __init__(self, net: nn.Module, order: np.ndarray) -> None:
        super().__init__()
        self.net = net
        self.places = torch.from_numpy(np.argsort(order))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.flatten(1)[:, self.places].view_as(x))


def scrambled_by_numpy() -> nn.Module:
    """Give the network pixels in an order that it knows, and no gradient."""
    order = np.random.default_rng(0).permutation(64)
    return nn.Sequential(Scrambler(order), Sorting(trained("elu-standard"), order))
