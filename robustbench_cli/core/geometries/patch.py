"""Patches: all that changes lies in one square of ``eps`` x ``eps`` pixels, at any place.

The threat of adversarial patches as certificates have it (Levine & Feizi, 2020,
https://arxiv.org/abs/2002.10733).
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.geometries import GEOMETRIES, Geometry, Room, over
from robustbench_cli.core.geometries._pixels import (
    changed,
    check_whole,
    energy,
    extremes,
    window,
    window_sums,
)


@GEOMETRIES.register("patch")
@dataclass(frozen=True)
class OneWindow(Geometry):
    """Images that differ in one square window only, there by anything.

    The distance is the side of the smallest square that holds all pixels which differ.
    """

    usual: ClassVar[float] = 5

    def __post_init__(self) -> None:
        check_whole(self.eps, "pixels a side of the patch")

    def fitting(self, shape: tuple[int, ...]) -> None:
        if self.eps > min(shape[1:]):
            raise UserError(
                f"a patch of {self.eps:g} x {self.eps:g} pixels does not fit into images of "
                f"{shape[1]} x {shape[2]}"
            )

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        differs = changed(x_adv, x)
        return torch.maximum(_extent(differs.any(2)), _extent(differs.any(1))).to(x)

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return images that keep the window with the largest change (in L2)."""
        x_adv = x_adv.clamp(0, 1)
        best = self._best_window(energy(x_adv, x))
        # Where all changes fit into a window, rounding may let another one seem as good.
        keeps = over(self.holds(self.distance(x_adv, x)), x) | best
        return torch.where(keeps, x_adv, x)

    def drawn(self, x: Tensor, noise: Noise, room: Room) -> Tensor:
        height, width = x.shape[2:]
        side = int(self.eps)
        count = (height - side + 1) * (width - side + 1)
        place = noise.fork("place").uniform(x.flatten(1)[:, :1]).squeeze(1)
        place = (place.double() * count).long().clamp(max=count - 1)
        return torch.where(window(place, side, (height, width)), noise.fork("value").uniform(x), x)

    def corner(self, x: Tensor, slope: Tensor, room: Room) -> Tensor:
        best, gains = extremes(x, room.allowed(slope))
        return torch.where(self._best_window(gains), best, x)

    def diameter(self, shape: tuple[int, ...]) -> float:
        return float(max(shape[1:]))

    def _best_window(self, score: Tensor) -> Tensor:
        """Return the window with the largest score (B, H, W), bool (B, 1, H, W)."""
        side = int(self.eps)
        place = window_sums(score, side).flatten(1).argmax(1)
        return window(place, side, (score.shape[1], score.shape[2]))


def _extent(differs: Tensor) -> Tensor:
    """Return the number of entries from the first to the last that differs, bool (B, N), as (B)."""
    count = differs.shape[1]
    index = torch.arange(count, device=differs.device)
    first = torch.where(differs, index, count).amin(1)
    last = torch.where(differs, index, -1).amax(1)
    return (last - first + 1).clamp_min(0)
