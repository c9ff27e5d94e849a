"""The Linf ball: every entry of an image moves by at most ``eps``."""

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.geometries import GEOMETRIES, Ball, Room, _Radius, over


@GEOMETRIES.register("Linf")
@dataclass(frozen=True)
class LinfBall(Ball):
    """A box around each image."""

    usual: ClassVar[float] = 8 / 255
    order: ClassVar[float] = float("inf")
    dual_order: ClassVar[float] = 1.0
    largest: ClassVar[float] = 1.0

    def slack(self, radius: _Radius) -> _Radius:
        # float32 rounds x + delta by up to about 3e-8 past the border of the ball.
        return 0 * radius + 1e-6

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        # Faces that are kept may carry no graph, and inference tensors count no writes.
        unsafe = x.requires_grad or x.is_inference() or torch.is_inference_mode_enabled()
        if unsafe or x.device.type != "cpu" or x.numel() > _SMALL:
            return x_adv.clamp(*_faces(x, self.eps))
        return x_adv.clamp(*_faces_of_last(x, x._version, self.eps))

    def drawn(self, x: Tensor, noise: Noise, room: Room) -> Tensor:
        return x + self.eps * (2 * noise.uniform(x) - 1)

    def direction(self, x: Tensor, noise: Noise, room: Room) -> Tensor:
        t = room.allowed(2 * noise.uniform(x) - 1)
        return t / over(self.distance(t, torch.zeros_like(t)).clamp_min(1e-12), t)

    def steepest(self, grad: Tensor) -> Tensor:
        return grad.sign()


_SMALL = 2**20
"""Pixels in a batch up to which faces are kept: more take memory, and more time to be used."""


def _faces(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return the least and the largest allowed value of each pixel (B, C, H, W), within the box."""
    return (x - eps).clamp_(0, 1), (x + eps).clamp_(0, 1)


@lru_cache(maxsize=1)
def _faces_of_last(x: Tensor, _writes: int, eps: float) -> tuple[Tensor, Tensor]:
    """Return ``_faces``, which an attack asks for at every step and which stay the same.

    Args:
        _writes: torch's count of the writes to ``x``, so that a change of it is noticed.
    """
    return _faces(x, eps)
