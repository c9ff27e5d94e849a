"""Honest models in forms that a check might take for a fault."""

import runpy
from pathlib import Path

from torch import Tensor, nn

nets = runpy.run_path(str(Path(__file__).parents[1] / "nets.py"))
After, trained = nets["After"], nets["trained"]


def times_five() -> nn.Module:
    """Multiply the logits by five, as at a temperature of a fifth."""
    return After("relu-trades", lambda z: 5 * z)


def times_ten() -> nn.Module:
    """Multiply the logits by ten."""
    return After("gelu-trades", lambda z: 10 * z)


def log_probabilities() -> nn.Module:
    """Return log-probabilities, which have the cross-entropy and the margins of logits."""
    return After("relu-pgd-at", lambda z: z.log_softmax(1))


class Average(nn.Module):
    """The mean of the logits of several networks."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.nets = nn.ModuleList(trained(name) for name in names)

    def forward(self, x: Tensor) -> Tensor:
        return sum(net(x) for net in self.nets) / len(self.nets)


def averaged_ensemble() -> nn.Module:
    """Average the logits of three networks."""
    return Average("relu-pgd-at", "gelu-pgd-at", "elu-pgd-at")


class Double(nn.Module):
    """A network that computes in float64."""

    def __init__(self, net: str) -> None:
        super().__init__()
        self.net = trained(net).double()

    def forward(self, x: Tensor) -> Tensor:
        weight = next(self.net.parameters())
        return self.net(x.to(weight.dtype)).to(x.dtype)


def float64_weights() -> nn.Module:
    """Hold weights in float64 and compute in whatever they are cast to."""
    return Double("gelu-pgd-at")


class Signed(nn.Module):
    """A network behind the normalisation that it was trained with."""

    def __init__(self) -> None:
        super().__init__()
        self.net = trained("relu-signed")

    def forward(self, x: Tensor) -> Tensor:
        return self.net((x - 0.5) / 0.5)


def normalised_inside() -> nn.Module:
    """Normalise images as in training."""
    return Signed()


def train_mode_flag() -> nn.Module:
    """Come in training mode, as a model does that was just built; evaluation mode is accepted."""
    return trained("elu-trades").train()
