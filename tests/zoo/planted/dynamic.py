"""Models that compute gradients of their own while they answer."""

import runpy
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

trained = runpy.run_path(str(Path(__file__).parents[1] / "nets.py"))["trained"]


class Surer(nn.Module):
    """Move the image towards the class it is taken for, then answer (Alfarra et al., 2022)."""

    def __init__(self, net: str, steps: int, size: float) -> None:
        super().__init__()
        self.net = trained(net)
        self.steps = steps
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        moved = x.detach()
        for _ in range(self.steps):
            with torch.enable_grad():
                moved = moved.detach().requires_grad_()
                z = self.net(moved)
                loss = F.cross_entropy(z, z.detach().argmax(1), reduction="sum")
                (grad,) = torch.autograd.grad(loss, moved)
            moved = moved - self.size * grad.sign()
        return self.net(x + (moved - x).detach())


def surer_once() -> nn.Module:
    """Take one step away from the boundary."""
    return Surer("relu-standard", 1, 0.15)


def surer_often() -> nn.Module:
    """Take eight steps away from the boundary."""
    return Surer("gelu-standard", 8, 0.05)


class Cleaning(nn.Module):
    """Find a smooth correction of the image by an optimiser, then answer."""

    def __init__(self) -> None:
        super().__init__()
        self.net = trained("elu-standard")

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            change = torch.zeros_like(x, requires_grad=True)
            optimizer = torch.optim.SGD([change], lr=0.5)
            for _ in range(5):
                optimizer.zero_grad()
                image = x.detach() + change
                z = self.net(image)
                rough = (image[..., 1:] - image[..., :-1]).pow(2).sum()
                entropy = -(z.softmax(1) * z.log_softmax(1)).sum()
                (entropy + 0.01 * rough).backward()
                optimizer.step()
        return self.net(x + change.detach())


def optimised_input() -> nn.Module:
    """Lower the entropy of the answer by five steps of an optimiser on the image."""
    return Cleaning()
