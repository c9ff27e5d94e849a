"""Models that are given images other than those they were trained on."""

import runpy
from pathlib import Path

import torch
from torch import Tensor, nn

NETS = runpy.run_path(str(Path(__file__).parents[1] / "nets.py"))
trained = NETS["trained"]


class Before(nn.Module):
    """A network behind a function of its images."""

    def __init__(self, change, net: str) -> None:
        super().__init__()
        self.change = change
        self.net = trained(net)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.change(x))


def expects_signed() -> nn.Module:
    """Give [0, 1] to a network that was trained on [-1, 1]."""
    return trained("relu-signed")


def normalised_twice() -> nn.Module:
    """Normalise images twice for a network that was trained on [-1, 1]."""
    return Before(lambda x: 2 * (2 * x - 1) - 1, "relu-signed")


def expects_bytes() -> nn.Module:
    """Divide by 255 what is in [0, 1] already."""
    return Before(lambda x: x / 255, "elu-standard")


def channels_reversed() -> nn.Module:
    """Read the colours of CIFAR-10 as blue, green, red."""
    return Before(lambda x: x.flip(1), "cifar-standard")


def untrained() -> nn.Module:
    """Return a network without its weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return NETS["ARCHITECTURES"]["relu"]().eval()


def untrained_transformer() -> nn.Module:
    """Return a transformer without its weights."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return NETS["ARCHITECTURES"]["vit"]().eval()
