"""A mask that frees a box in the centre of the image."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor

from robustbench_cli.core.registry import Number
from robustbench_cli.masks import MASKS, Mask, MaskContext


@MASKS.register("box", positional="share")
@dataclass(frozen=True, kw_only=True)
class Box(Mask):
    """Only pixels in a central box (a patch) may change, the same ones in every image.

    ``inverse=true`` protects the centre instead, a rough background mask for centred objects.
    """

    share: Annotated[Number, Field(gt=0, le=1)] = 0.5
    """The box's sides as a share of the image's, rounded to whole pixels, at least one."""

    @property
    def fixed(self) -> bool:
        return True

    def selected(self, context: MaskContext) -> Tensor:
        height, width = context.x.shape[2:]
        rows, columns = _middle(height, self.share), _middle(width, self.share)
        box = context.x.new_zeros(height, width).bool()
        box[rows, columns] = True
        return box.expand(len(context.x), 1, height, width)


def _middle(side: int, share: float) -> slice:
    """Return the central pixels of a row; if they cannot be centred, one more is left after."""
    length = max(1, round(share * side))
    first = (side - length) // 2
    return slice(first, first + length)
