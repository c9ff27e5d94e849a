"""Median smoothing (Xu et al., 2018), https://arxiv.org/abs/1704.01155, feature squeezing."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from robustbench_cli.input_defenses import INPUT_DEFENSES, Backward, DefenseContext, InputDefense


@INPUT_DEFENSES.register("median", positional="size")
@dataclass(frozen=True, kw_only=True)
class Median(InputDefense):
    """Replace every pixel by the median of a square window around it, channel by channel.

    Outside of the image it is mirrored.  As in scipy, of an even number of pixels the upper median
    is taken, and the centre of a window of even size is the pixel behind its middle.
    """

    hides: ClassVar[str] = "a choice among pixels: the gradient goes to one of each window alone"
    backwards: ClassVar[tuple[Backward, ...]] = ("exact", "straight-through", "smoothed")

    size: Annotated[int, Field(ge=2, le=15)] = 2
    """Side of the window in pixels; the paper takes 2 or 3."""

    def cleaned(self, x: Tensor, context: DefenseContext) -> Tensor:
        return self._windows(x).sort(-1).values[..., self.size**2 // 2]

    def smoothed(self, x: Tensor, context: DefenseContext) -> Tensor:
        """Return the mean of each window."""
        return self._windows(x).mean(-1)

    def _windows(self, x: Tensor) -> Tensor:
        """The pixels of each window, (B, C, H, W, size^2)."""
        rows, columns = (_mirrored(side, self.size, x.device) for side in x.shape[2:])
        picked = x[:, :, rows][..., columns]  # (B, C, H, size, W, size)
        return picked.transpose(3, 4).flatten(4)


def _mirrored(side: int, size: int, device: torch.device) -> Tensor:
    """The positions of the pixels of each window along one axis (side, size), mirrored outside."""
    at = torch.arange(side, device=device)[:, None] + torch.arange(size, device=device) - size // 2
    at = at % (2 * side)
    return torch.minimum(at, 2 * side - 1 - at)
