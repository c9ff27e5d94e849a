"""The L2 ball: the change as a vector is at most ``eps`` long."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.geometries import GEOMETRIES, Ball, Room, over


@GEOMETRIES.register("L2")
@dataclass(frozen=True)
class L2Ball(Ball):
    """A Euclidean ball around each image."""

    usual: ClassVar[float] = 0.5
    order: ClassVar[float] = 2.0
    dual_order: ClassVar[float] = 2.0
    largest: ClassVar[float] = 50.0

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        delta = x_adv - x
        scale = (self.eps / _length(delta).clamp_min(1e-12)).clamp(max=1)
        return (x + delta * over(scale, x)).clamp(0, 1)

    def drawn(self, x: Tensor, noise: Noise, room: Room) -> Tensor:
        share = noise.fork("share").uniform(x.flatten(1)[:, :1]).squeeze(1)
        size = over(self.eps * share ** (1 / room.dimensions(x)), x)
        return x + size * self.steepest(room.allowed(noise.fork("direction").normal(x)))

    def steepest(self, grad: Tensor) -> Tensor:
        return grad / over(_length(grad) + 1e-10, grad)


def _length(delta: Tensor) -> Tensor:
    """The L2 norm of each example (B)."""
    norms: Tensor = torch.linalg.vector_norm(delta.flatten(1), dim=1)
    return norms
