"""A mask that frees a frame along the edges of the image."""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from robustbench_cli.masks import MASKS, Mask, Sight


@MASKS.register("border", positional="width")
@dataclass(frozen=True, kw_only=True)
class Border(Mask):
    """Only pixels in a frame along the edges may change, the same ones in every image."""

    width: Annotated[int, Field(ge=0)] = 1
    """Width of the frame in pixels; 0: nothing may change."""

    def open(self, sight: Sight) -> Tensor:
        height, width = sight.x.shape[2:]
        row, column = (_to_edge(side, sight.x.device) for side in (height, width))
        near = torch.minimum(row[:, None], column) < self.width
        return near.expand(len(sight.x), 1, height, width)


def _to_edge(side: int, device: torch.device) -> Tensor:
    """Return each pixel's distance to the nearer end of a row of ``side`` pixels (int64)."""
    index = torch.arange(side, device=device)
    return torch.minimum(index, side - 1 - index)
