"""A frame along the edges of the image."""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from robustbench_cli.masks import MASKS, Mask, Sight


@MASKS.register("border", positional="width")
@dataclass(frozen=True, kw_only=True)
class Border(Mask):
    """Pixels near an edge may change, the same ones in every image."""

    width: Annotated[int, Field(ge=0)] = 1
    """Of the frame, in pixels; 0: none, and nothing may change."""

    def open(self, sight: Sight) -> Tensor:
        height, width = sight.x.shape[2:]
        row, column = (_to_edge(side, sight.x.device) for side in (height, width))
        near = torch.minimum(row[:, None], column) < self.width
        return near.expand(len(sight.x), 1, height, width)


def _to_edge(side: int, device: torch.device) -> Tensor:
    """How many pixels lie between each pixel of a line and its nearer end."""
    place = torch.arange(side, device=device)
    return torch.minimum(place, side - 1 - place)
