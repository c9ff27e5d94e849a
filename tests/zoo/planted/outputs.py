"""Models that return something else than logits."""

import runpy
from pathlib import Path

from torch import nn

nets = runpy.run_path(str(Path(__file__).parents[1] / "nets.py"))
After = nets["After"]


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
