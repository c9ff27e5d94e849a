"""The square windows of Square Attack, one per image at a place of its own, vectorised.

Andriushchenko et al. (2020), https://arxiv.org/abs/1912.00049.
"""

import math
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Numbers of queries (of 10,000) after which the area of the window is halved."""


@cache
def sides(
    queries: int,
    share: float,
    shape: tuple[int, int],
    odd: bool,
    rescale: bool,
    device: torch.device,
) -> Tensor:
    """Return the side of the window in pixels at each query (int64, (queries)).

    Args:
        share: the share of the image's area that the first windows cover.
        shape: height and width of the image.
        odd: round sides up to odd numbers of at least 3, as L2 and L1 need.
        rescale: scale the numbers of queries at which the area is halved to ``queries``.
    """
    pixels, result = shape[0] * shape[1], []
    for query in range(queries):
        at = int(query / queries * 10000) if rescale else query
        part = share / 2 ** sum(at > mark for mark in _HALVINGS)
        side = max(round(math.sqrt(part * pixels)), 3 if odd else 1)
        result.append(min(side + (odd and side % 2 == 0), *shape))
    return torch.tensor(result, device=device)


class Window(NamedTuple):
    """Squares of images, in pixels, int64: one per image, or several (B, ...)."""

    corner: Tensor
    """Row and column (B, ..., 2) of the upper left pixel."""
    side: Tensor
    """(B, ...)."""

    def mask(self, height: int, width: int) -> Tensor:
        """Return a bool mask (B, ..., 1, H, W) of the pixels inside the squares."""
        rows, columns = self.bands(height, width)
        return rows & columns

    def bands(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Return bool masks of the rows (B, ..., 1, H, 1) and columns (B, ..., 1, 1, W) of them."""
        offsets = self.offsets(max(height, width))
        inside = (offsets >= 0) & (offsets < self.side[..., None, None])
        return inside[..., :1, :height, None], inside[..., 1:, None, :width]

    def offsets(self, count: int) -> Tensor:
        """Return how far the first rows and columns are behind the corner's (B, ..., 2, count)."""
        return counted_up(count, self.corner.device) - self.corner[..., None]

    def painted(self, table: Tensor, kind: Tensor, shape: tuple[int, int]) -> Tensor:
        """Return (B, 1, H, W) with a pattern from ``table`` in each square and zero elsewhere.

        Args:
            table: patterns (T, S, S).
            kind: the index of the pattern for each image (B); its first ``side`` rows and columns
                are used.
            shape: height and width of the image.
        """
        inside = self.offsets(max(shape)).clamp(0, table.shape[-1] - 1)
        pattern = table[
            kind[:, None, None], inside[:, 0, : shape[0], None], inside[:, 1, None, : shape[1]]
        ]
        return torch.where(self.mask(*shape), pattern[:, None], 0)


@cache
def counted_up(count: int, device: torch.device) -> Tensor:
    """Return 0 to ``count`` - 1; cached, because each query needs it."""
    return torch.arange(count, device=device)


def placed(draw: Tensor, side: Tensor, shape: tuple[int, int]) -> Window:
    """Return windows at uniformly random places.

    As in the official code and all others, the last possible row and column are never drawn.

    Args:
        draw: uniform numbers in [0, 1), (B, ..., 2 or more), of which the first two are used.
        side: the windows' sides (B, ...).
        shape: height and width of the image.
    """
    room = _shape(shape, side.device) - side[..., None]
    return Window((draw[..., :2] * room).long(), side)


@cache
def _shape(shape: tuple[int, int], device: torch.device) -> Tensor:
    """Return height and width as a tensor (2)."""
    return torch.tensor(shape, device=device)


@cache
def bumps(side_max: int, power: int, device: torch.device) -> Tensor:
    """Return the bumps for windows of side 0 to S = ``side_max``: float32 (2 (S + 1), S, S).

    The upper half of a bump is a positive pyramid, the lower half a negative one, scaled to unit
    length in L2 (``power`` 2) or L1 (``power`` 4).  The bump for side s has index 2 s, its
    transpose index 2 s + 1.
    """
    table = torch.zeros(2 * (side_max + 1), side_max, side_max)
    for side in range(1, side_max + 1):
        both = torch.zeros(side, side)
        both[: side // 2] = _pyramid(side // 2, side, power)
        both[side // 2 :] = -_pyramid(side - side // 2, side, power)
        both /= both.norm() if power == 2 else both.abs().sum()
        table[2 * side, :side, :side], table[2 * side + 1, :side, :side] = both, both.T
    return table.to(device)


def _pyramid(height: int, width: int, power: int) -> Tensor:
    """Return a sum of centred rectangles, the j-th 1 / (j + 1) ** power high, of unit length."""
    result = torch.zeros(height, width)
    top, left = height // 2, width // 2
    for j in range(max(height // 2, width // 2) + 1):
        rows = slice(max(top - j, 0), min(top - j + 2 * j + 1, height))
        columns = slice(max(left - j, 0), min(left - j + 2 * j + 1, width))
        result[rows, columns] += 1 / (j + 1) ** power
    return result / (result.norm() if power == 2 else result.abs().sum()).clamp_min(1e-12)
