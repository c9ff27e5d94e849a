"""L0: at most ``eps`` pixels change, each to any value; the channels of a pixel go together.

That is what randomized ablation certifies (Levine & Feizi, 2020, https://arxiv.org/abs/1911.09272).
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.geometries import GEOMETRIES, Geometry, Room
from robustbench_cli.core.geometries._pixels import (
    changed,
    check_whole,
    energy,
    extremes,
    largest_pixels,
)


@GEOMETRIES.register("L0")
@dataclass(frozen=True)
class FewPixels(Geometry):
    """Images in which at most ``eps`` pixels differ; the distance is the number that do."""

    usual: ClassVar[float] = 8

    def __post_init__(self) -> None:
        check_whole(self.eps, "pixels under L0")

    def fitting(self, shape: tuple[int, ...]) -> None:
        pixels = shape[1] * shape[2]
        if self.eps > pixels:
            raise UserError(f"L0 {self.eps:g}: the images have no more than {pixels} pixels")

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        return changed(x_adv, x).flatten(1).sum(1).to(x)

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return images that keep the ``eps`` pixels with the largest change (in L2)."""
        x_adv = x_adv.clamp(0, 1)
        return torch.where(largest_pixels(energy(x_adv, x), int(self.eps)), x_adv, x)

    def drawn(self, x: Tensor, noise: Noise, room: Room) -> Tensor:
        score = room.allowed(1 + noise.fork("place").uniform(x[:, :1])).amax(1)
        return torch.where(largest_pixels(score, int(self.eps)), noise.fork("value").uniform(x), x)

    def corner(self, x: Tensor, slope: Tensor, room: Room) -> Tensor:
        best, gains = extremes(x, room.allowed(slope))
        return torch.where(largest_pixels(gains, int(self.eps)), best, x)

    def diameter(self, shape: tuple[int, ...]) -> float:
        return float(shape[1] * shape[2])
