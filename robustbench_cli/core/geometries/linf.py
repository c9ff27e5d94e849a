"""The Linf ball: every entry of an image moves by at most ``eps``."""

from dataclasses import dataclass
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

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        # On a CPU torch's norm takes twenty times as long for this order.
        return (x_adv - x).flatten(1).abs().amax(1)

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        return x_adv.clamp((x - self.eps).clamp_(0, 1), (x + self.eps).clamp_(0, 1))

    def drawn(self, x: Tensor, noise: Noise, room: Room) -> Tensor:
        return x + self.eps * (2 * noise.uniform(x) - 1)

    def direction(self, x: Tensor, noise: Noise, room: Room) -> Tensor:
        t = room.allowed(2 * noise.uniform(x) - 1)
        return t / over(self.distance(t, torch.zeros_like(t)).clamp_min(1e-12), t)

    def steepest(self, grad: Tensor) -> Tensor:
        return grad.sign()
