"""Square windows at a place of their own in every image, without a loop over images."""

import math
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""After how many queries (of 10,000) the share of the image that a window covers halves again."""


@cache
def sides(
    queries: int,
    share: float,
    shape: tuple[int, int],
    odd: bool,
    rescale: bool,
    device: torch.device,
) -> Tensor:
    """The side of the window at each query.

    Args:
        share: of the image, at first.
        odd: under L2 and L1 windows are odd and at least 3 wide.
        rescale: whether the halvings are shares of ``queries`` instead of counts.
    """
    pixels, result = shape[0] * shape[1], []
    for query in range(queries):
        at = int(query / queries * 10000) if rescale else query
        part = share / 2 ** sum(at > mark for mark in _HALVINGS)
        side = max(round(math.sqrt(part * pixels)), 3 if odd else 1)
        result.append(min(side + (odd and side % 2 == 0), *shape))
    return torch.tensor(result, device=device)


class Window(NamedTuple):
    """One square per image: its upper left corner and its side, each (B)."""

    top: Tensor
    left: Tensor
    side: Tensor

    def mask(self, height: int, width: int) -> Tensor:
        """Where the squares are, (B, 1, H, W)."""
        rows, columns = self.offsets(height, width)
        inside = (rows >= 0) & (rows < self.side[:, None])
        across = (columns >= 0) & (columns < self.side[:, None])
        return (inside[:, :, None] & across[:, None, :])[:, None]

    def offsets(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Row and column of every pixel, counted from the corner: (B, H) and (B, W)."""
        rows, columns = _counted(height, self.top.device), _counted(width, self.top.device)
        return rows - self.top[:, None], columns - self.left[:, None]

    def painted(self, table: Tensor, kind: Tensor, shape: tuple[int, int]) -> Tensor:
        """A picture from ``table`` (S, side, side) in each square, zero elsewhere: (B, 1, H, W).

        Args:
            kind: which picture (B); its first ``side`` rows and columns are shown.
        """
        rows, columns = self.offsets(*shape)
        most = table.shape[-1] - 1
        picture = table[
            kind[:, None, None],
            rows.clamp(0, most)[:, :, None],
            columns.clamp(0, most)[:, None, :],
        ]
        return torch.where(self.mask(*shape), picture[:, None], 0)


@cache
def _counted(count: int, device: torch.device) -> Tensor:
    return torch.arange(count, device=device)


def placed(draw: Tensor, side: Tensor, shape: tuple[int, int]) -> Window:
    """A window anywhere, by two draws in [0, 1) per image; as in every code, never at the end."""
    top = (draw[:, 0] * (shape[0] - side)).long()
    left = (draw[:, 1] * (shape[1] - side)).long()
    return Window(top, left, side)


@cache
def bumps(side_max: int, power: int, device: torch.device) -> Tensor:
    """Pictures for windows of side 0 to ``side_max``, upright and turned: (2 (S + 1), S, S).

    The upper half is a positive pyramid, the lower a negative one, of unit length in L2
    (``power`` 2) or L1 (``power`` 4).  The picture for side s is number 2 s, turned 2 s + 1.
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
    """Rectangles around the middle, the next one 1 / (j + 1) ** power high."""
    result = torch.zeros(height, width)
    top, left = height // 2, width // 2
    for j in range(max(height // 2, width // 2) + 1):
        rows = slice(max(top - j, 0), min(top - j + 2 * j + 1, height))
        columns = slice(max(left - j, 0), min(left - j + 2 * j + 1, width))
        result[rows, columns] += 1 / (j + 1) ** power
    return result / (result.norm() if power == 2 else result.abs().sum()).clamp_min(1e-12)
