"""Models whose backward pass is not the derivative of the forward pass."""

import runpy
from pathlib import Path

import torch
from torch import Tensor, nn

trained = runpy.run_path(str(Path(__file__).parents[1] / "nets.py"))["trained"]


class Backward(torch.autograd.Function):
    """The identity, with a backward pass that is given as a function."""

    @staticmethod
    def forward(ctx, x: Tensor, change) -> Tensor:
        ctx.change = change
        return x.clone()

    @staticmethod
    def backward(ctx, grad: Tensor):
        return ctx.change(grad), None


class Inside(nn.Module):
    """A network with a wrong backward pass before its images or behind its features."""

    def __init__(self, net: str, change, deep: bool = False) -> None:
        super().__init__()
        self.net = trained(net)
        self.change = change
        self.deep = deep

    def forward(self, x: Tensor) -> Tensor:
        if self.deep:
            return self.net.head(Backward.apply(self.net.body(x), self.change))
        return self.net(Backward.apply(x, self.change))


def zero() -> nn.Module:
    """Return a gradient of zeros."""
    return Inside("relu-standard", torch.zeros_like)


def negated() -> nn.Module:
    """Return the gradient's opposite, from the features on."""
    return Inside("elu-standard", lambda grad: -grad, deep=True)


def noisy() -> nn.Module:
    """Return a gradient that is mostly noise."""
    return Inside(
        "gelu-standard", lambda grad: grad + 20 * grad.abs().mean() * torch.randn_like(grad)
    )


def constant() -> nn.Module:
    """Return the same gradient for every image."""
    return Inside("mlp-standard", torch.ones_like)


class Roots(nn.Module):
    """A network behind a function that is the identity, by way of a root."""

    def __init__(self, net: str, change) -> None:
        super().__init__()
        self.net = trained(net)
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.change(x))


def not_a_number() -> nn.Module:
    """Square the root of the image: the gradient of a black pixel is NaN."""
    return Roots("relu-standard", lambda x: x.sqrt() ** 2)


def infinite() -> nn.Module:
    """Add a vanishing multiple of the root: the gradient of a black pixel is infinite."""
    return Roots("leaky-standard", lambda x: x + 1e-20 * x.sqrt())


def masked_half() -> nn.Module:
    """Pass the gradient of the left half of the image only."""

    def left(grad: Tensor) -> Tensor:
        return torch.cat([grad[..., :4], torch.zeros_like(grad[..., 4:])], -1)

    return Inside("softplus-standard", left)


class Turned(nn.Module):
    """A network whose gradient is the opposite one at images that are far from clean ones."""

    def __init__(self, net: str) -> None:
        super().__init__()
        self.net = trained(net)

    def forward(self, x: Tensor) -> Tensor:
        moved = 1.0 * x
        # Pixels of clean digits are multiples of 1/16; at a corner of the ball most are far off.
        off = (16 * x - (16 * x).round()).abs().flatten(1).mean(1).detach()
        if moved.requires_grad:
            moved.register_hook(
                lambda grad: torch.where(off > 0.23, -1, 1).view(-1, 1, 1, 1) * grad
            )
        return self.net(moved)


def turned_far_away() -> nn.Module:
    """Turn the gradient around where attacks end, but not where they start."""
    return Turned("relu-trades")
