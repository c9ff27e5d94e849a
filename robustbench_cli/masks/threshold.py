"""A background mask for white-on-black images, after Rothberg et al. (2019),
https://arxiv.org/abs/1909.04779.

The paper attacks the background; how it separates background and object is not published.
"""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor

from robustbench_cli.core.registry import Number
from robustbench_cli.masks import MASKS, Mask, MaskContext


@MASKS.register("threshold", aliases=("background",), positional="above")
@dataclass(frozen=True, kw_only=True)
class Threshold(Mask):
    """Only dark pixels may change: those with no channel above a threshold.

    It is meant for digits on black (digits, MNIST).  On natural images dark pixels are not the
    background; give the background as a mask with ``file`` instead.
    """

    above: Annotated[Number, Field(ge=0, lt=1)] = 0.1
    """Pixels brighter than this (in [0, 1]) are the object and must not change."""

    def selected(self, context: MaskContext) -> Tensor:
        return context.x.amax(1, keepdim=True) <= self.above
