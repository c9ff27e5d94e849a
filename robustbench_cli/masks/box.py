"""A box in the middle of the image."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor

from robustbench_cli.core.registry import Number
from robustbench_cli.masks import MASKS, Mask, Sight


@MASKS.register("box", positional="share")
@dataclass(frozen=True, kw_only=True)
class Box(Mask):
    """Pixels in a central box may change, the same ones in every image: a patch.

    ``inverse=true`` protects the middle instead, a crude background where objects are centred.
    """

    share: Annotated[Number, Field(gt=0, le=1)] = 0.5
    """Its sides as a share of the image's, in whole pixels and at least one."""

    def open(self, sight: Sight) -> Tensor:
        height, width = sight.x.shape[2:]
        rows, columns = _middle(height, self.share), _middle(width, self.share)
        box = sight.x.new_zeros(height, width).bool()
        box[rows, columns] = True
        return box.expand(len(sight.x), 1, height, width)


def _middle(side: int, share: float) -> slice:
    """The middle pixels of a line; where they cannot be centred, one more is left after them."""
    length = max(1, round(share * side))
    first = (side - length) // 2
    return slice(first, first + length)
