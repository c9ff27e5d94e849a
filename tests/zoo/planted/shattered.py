"""Models whose gradient exists, is large, and points nowhere."""

import runpy
from pathlib import Path

import torch
from torch import Tensor, nn

trained = runpy.run_path(str(Path(__file__).parents[1] / "nets.py"))["trained"]


class Scramble(torch.autograd.Function):
    """The identity; backward, pixels change places and signs, always in the same way."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        flat = grad.flatten(1)
        draw = torch.Generator().manual_seed(0)
        places = torch.randperm(flat.shape[1], generator=draw)
        signs = torch.randint(0, 2, (flat.shape[1],), generator=draw) * 2 - 1
        return (flat[:, places] * signs).view_as(grad)


class Before(nn.Module):
    """A network behind a function of its images."""

    def __init__(self, change, net: str) -> None:
        super().__init__()
        self.change = change
        self.net = trained(net)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.change(x))


def scrambled() -> nn.Module:
    """Scramble the gradient by a custom backward pass."""
    return Before(Scramble.apply, "relu-standard")


def ripple() -> nn.Module:
    """Add a fast ripple of one hundredth, whose slope drowns that of the image."""
    return Before(lambda x: x + 0.01 * torch.sin(500 * x), "gelu-standard")


def sawtooth() -> nn.Module:
    """Subtract a sawtooth of three hundredths: every slope points the wrong way."""
    return Before(lambda x: x - 0.03 * torch.remainder(200 * x, 1), "elu-standard")


def winners() -> nn.Module:
    """Keep only the largest fifth of the activations of each layer."""
    return trained("kwta-standard")


class Coins(nn.Module):
    """A network whose gradient gets a fresh random sign for each pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.net = trained("mlp-standard")

    def forward(self, x: Tensor) -> Tensor:
        inner = x.clone()
        if inner.requires_grad:
            inner.register_hook(lambda grad: grad * (torch.rand_like(grad) - 0.5).sign())
        return self.net(inner)


def random_signs() -> nn.Module:
    """Flip signs of the gradient at random by a hook on the images."""
    return Coins()
