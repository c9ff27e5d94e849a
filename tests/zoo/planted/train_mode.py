"""Models that stay in training mode."""

import runpy
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

trained = runpy.run_path(str(Path(__file__).parents[1] / "nets.py"))["trained"]


class Stubborn(nn.Module):
    """A network with dropout that cannot be put in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.net = trained("mlp-standard")
        self.drop = nn.Dropout(0.4)

    def train(self, mode: bool = True) -> nn.Module:
        self.training = mode
        self.net.train(mode)
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.net.head(self.drop(self.net.body(x)))


def refuses_eval() -> nn.Module:
    """Leave a dropout layer in training mode whatever is asked for."""
    return Stubborn()


class Hard(nn.BatchNorm2d):
    """BatchNorm that says it evaluates and uses the batch's statistics."""

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, None, None, self.weight, self.bias, training=True)


def functional_batchnorm() -> nn.Module:
    """Call the functional BatchNorm with ``training=True``."""
    net = trained("softplus-standard")
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.__class__ = Hard
    return net


class Thinning(nn.Module):
    """A network behind pixels that are dropped, in evaluation too."""

    def __init__(self) -> None:
        super().__init__()
        self.net = trained("relu-standard")

    def forward(self, x: Tensor) -> Tensor:
        return self.net(F.dropout2d(x.view(len(x), 64, 1, 1), 0.15, training=True).view_as(x))


def functional_dropout() -> nn.Module:
    """Call the functional dropout with ``training=True``."""
    return Thinning()
