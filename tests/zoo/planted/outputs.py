"""Models that return something else than logits."""

import runpy
from pathlib import Path

from torch import Tensor, nn

trained = runpy.run_path(str(Path(__file__).parents[1] / "nets.py"))["trained"]


class After(nn.Module):
    """A network before a function of its logits."""

    def __init__(self, net: str, change) -> None:
        super().__init__()
        self.net = trained(net)
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        return self.change(self.net(x))


def probabilities() -> nn.Module:
    """Return probabilities, of a network that is rather sure."""
    return After("relu-standard", lambda z: (4 * z).softmax(1))


def percentages() -> nn.Module:
    """Return probabilities in percent."""
    return After("elu-standard", lambda z: 100 * (4 * z).softmax(1))


def softmax_twice() -> nn.Module:
    """Return the softmax of probabilities."""
    return After("gelu-standard", lambda z: (4 * z).softmax(1).softmax(1))


def scores() -> nn.Module:
    """Return the sigmoid of each logit."""
    return After("leaky-standard", lambda z: (4 * z).sigmoid())
