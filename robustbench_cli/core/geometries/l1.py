"""The L1 ball: the changes of all entries together are at most ``eps``."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.geometries import GEOMETRIES, Ball, Room, over

SPARSE = 0.05
"""The fraction of the coordinates that a step moves (SLIDE, Tramer & Boneh, 2019,
https://arxiv.org/abs/1904.13000)."""
_HALVINGS = 32
"""Halvings of an interval until it is below float32's resolution."""


@GEOMETRIES.register("L1")
@dataclass(frozen=True)
class L1Ball(Ball):
    """A ball in the sum of absolute changes around each image."""

    usual: ClassVar[float] = 12.0
    order: ClassVar[float] = 1.0
    dual_order: ClassVar[float] = float("inf")
    largest: ClassVar[float] = 1000.0

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        return onto_l1(x_adv, x, self.eps)

    def drawn(self, x: Tensor, noise: Noise, room: Room) -> Tensor:
        share = noise.fork("share").uniform(x.flatten(1)[:, :1]).squeeze(1)
        size = over(self.eps * share ** (1 / room.dimensions(x)), x)
        # Exponential magnitudes with random signs, scaled to the sphere, are uniform on it.
        sign = (noise.fork("sign").uniform(x) < 0.5).to(x) * 2 - 1
        direction = room.allowed(sign * -torch.log1p(-noise.fork("direction").uniform(x)))
        return x + size * direction / over(direction.abs().flatten(1).sum(1), x)

    def steepest(self, grad: Tensor) -> Tensor:
        """Return steps (B, C, H, W) of length one in which ``SPARSE`` of the entries move together.

        The steepest one would move a single entry.
        """
        flat = grad.abs().flatten(1)
        kept = max(1, round(SPARSE * flat.shape[1]))
        least = flat.topk(kept, dim=1).values[:, -1:]
        signs = torch.where(flat >= least, grad.flatten(1).sign(), 0)
        return (signs / signs.abs().sum(1, keepdim=True).clamp_min(1)).view_as(grad)


def onto_l1(x_adv: Tensor, x: Tensor, eps: float | Tensor) -> Tensor:
    """Return the nearest points (B, C, H, W) in the box that are at most ``eps`` from ``x`` in L1.

    Their change is sign * min(max(|delta_i| - t, 0), room_i), where room_i is the distance of x_i
    from the border of [0, 1], for the smallest t >= 0 with a sum of at most eps.  The sum falls
    with t, so bisection finds it (Croce & Hein, 2021, https://arxiv.org/abs/2103.01208: attacks
    that shrink along the ray instead are far too weak).

    Args:
        eps: one radius, or one per example (B).
    """
    delta = (x_adv - x).flatten(1)
    size = delta.abs()
    room = torch.where(delta > 0, 1 - x.flatten(1), x.flatten(1))
    most = over(eps, size) if isinstance(eps, Tensor) else eps
    none = torch.zeros((), dtype=size.dtype, device=size.device)
    low, high = torch.zeros_like(size[:, :1]), size.amax(1, keepdim=True)
    for _ in range(_HALVINGS):  # of few and small operations: most of the time of L1 attacks
        middle = (low + high).mul_(0.5)
        fits = (size - middle).clamp_(none, room).sum(1, keepdim=True) <= most
        low, high = torch.where(fits, low, middle), torch.where(fits, middle, high)
    free = torch.minimum(size, room).sum(1, keepdim=True) <= most
    z = delta.sign() * (size - high.masked_fill(free, 0)).clamp_(none, room)
    return (x + z.view_as(x)).clamp(0, 1)
