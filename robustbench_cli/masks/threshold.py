"""The background of white-on-black images (Rothberg et al., 2019).

https://arxiv.org/abs/1909.04779 attacks the background; how it tells it from the object is not
known.
"""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor

from robustbench_cli.core.registry import Number
from robustbench_cli.masks import MASKS, Mask, Sight


@MASKS.register("threshold", aliases=("background",), positional="above")
@dataclass(frozen=True, kw_only=True)
class Threshold(Mask):
    """Dark pixels may change: those no channel of which is above a value.

    Made for digits on black (digits, MNIST).  On natural images it is meaningless: darkness is no
    background there; give the object's mask with ``file`` instead.
    """

    above: Annotated[Number, Field(ge=0, lt=1)] = 0.1
    """Pixels brighter than this are the object and must stay."""

    def open(self, sight: Sight) -> Tensor:
        return sight.x.amax(1, keepdim=True) <= self.above
