"""A mask that frees a frame along the edges of the image."""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from robustbench_cli.masks import MASKS, Mask, MaskContext


@MASKS.register("border", positional="width")
@dataclass(frozen=True, kw_only=True)
class Border(Mask):
    """Only pixels in a frame along the edges may change, the same ones in every image."""

    width: Annotated[int, Field(ge=0)] = 1
    """Width of the frame in pixels; 0: nothing may change."""

    @property
    def fixed(self) -> bool:
        return True

    def selected(self, context: MaskContext) -> Tensor:
        height, width = context.x.shape[2:]
        row, column = (_to_edge(side, context.x.device) for side in (height, width))
        near = torch.minimum(row[:, None], column) < self.width
        return near.expand(len(context.x), 1, height, width)


def _to_edge(side: int, device: torch.device) -> Tensor:
    """Return each pixel's distance to the nearer end of a row of ``side`` pixels (int64)."""
    index = torch.arange(side, device=device)
    return torch.minimum(index, side - 1 - index)
