"""Parts of images: some pixels, bands and blocks; which pixels belong to them.

Bands and blocks go on at the opposite border of the image, so that every pixel is in as many.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from robustbench_cli.core.example_rng import Noise

Piece = Literal["column", "row", "block"]
"""A band of full height, one of full width, or a square."""

_CUT: dict[Piece, tuple[bool, bool]] = {
    "column": (False, True),
    "row": (True, False),
    "block": (True, True),
}
"""Whether a piece is shorter than the image, along its height and along its width."""


def random_pixels(x: Tensor, noise: Noise, count: int) -> Tensor:
    """Return ``count`` pixels of each image, every set as likely, as bool (B, 1, H, W).

    Args:
        x: images (B, C, H, W), of which only the size counts.
        noise: one draw per image.
        count: at most H W.
    """
    pixels = x.shape[2] * x.shape[3]
    none = torch.zeros(len(x), pixels, dtype=torch.bool, device=x.device)
    chosen = noise.subset(pixels, count).to(x.device)
    return none.scatter_(1, chosen, True).view(-1, 1, *x.shape[2:])


@dataclass(frozen=True)
class Pieces:
    """All bands, or all blocks, of one width in images of one size."""

    kind: Piece
    width: int
    """The width of a band, the side of a block, in pixels."""
    size: tuple[int, int]
    """Height and width of the images."""

    @property
    def count(self) -> int:
        """The number of places: one for each row or column, or for each pixel."""
        rows, columns = self._places
        return rows * columns

    def at(self, place: Tensor) -> Tensor:
        """Return the pixels in the pieces at these places (B, int64), bool (B, 1, H, W)."""
        columns = self._places[1]
        inside = []
        for start, side, cut in zip(
            (place // columns, place % columns), self.size, _CUT[self.kind], strict=True
        ):
            offset = (torch.arange(side, device=place.device) - start[:, None]) % side
            inside.append(offset < (self.width if cut else side))
        return (inside[0][:, None, :, None]) & inside[1][:, None, None, :]

    def touched(self, side: int) -> int:
        """Return how many pieces a square of ``side`` x ``side`` pixels meets at most."""
        if side == 0:
            return 0
        met = 1
        for length, cut in zip(self.size, _CUT[self.kind], strict=True):
            met *= min(side + self.width - 1, length) if cut else 1
        return met

    def __str__(self) -> str:
        shape = f"{self.width} x {self.width}" if all(_CUT[self.kind]) else f"width {self.width}"
        return f"{self.kind}s of {shape} pixels"

    @property
    def _places(self) -> tuple[int, int]:
        """The number of places along the height and along the width."""
        cut = _CUT[self.kind]
        return self.size[0] if cut[0] else 1, self.size[1] if cut[1] else 1
