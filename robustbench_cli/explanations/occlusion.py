"""Occlusion (Zeiler and Fergus, 2014), https://arxiv.org/abs/1311.2901."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, PositiveInt
from torch import Tensor

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.registry import Number
from robustbench_cli.explanations import EXPLANATIONS, ExplainedImages, Explanation
from robustbench_cli.explanations._captum import captum_attributions, captum_method

_PARTS = 7
"""The default window is a seventh of the shorter side: 32 pixels at 224, 4 at 28, 2 at 8."""


@EXPLANATIONS.register("occlusion", positional="window")
@dataclass(frozen=True, kw_only=True)
class Occlusion(Explanation):
    """The fall of the class's logit when a square window hides the pixel, by captum.

    A pixel under several positions of the window gets their mean.  Where the logit rises, the pixel
    speaks against the class and has no importance.  The logit is taken and not the probability,
    which sure predictions round to one.
    """

    window: PositiveInt | None = None
    """Side of the window in pixels; none: a seventh of the image's shorter side, at least 2."""
    stride: PositiveInt | None = None
    """Pixels between two positions; none: half the window."""
    value: Annotated[Number, Field(ge=0, le=1)] = 0.0
    """Value of the pixels under it.  The authors take grey, which on digits is an object itself."""

    def attributions(self, asked: ExplainedImages) -> Tensor:
        channels, *sides = asked.x.shape[1:]
        side = self.window or max(2, min(sides) // _PARTS)
        stride = self.stride or max(1, side // 2)
        if side > min(sides) or stride > side:
            raise UserError(
                f"occlusion: a window of {side} pixels with stride {stride} does not fit images of "
                f"{sides[0]}x{sides[1]}; the stride is at most the window"
            )
        return captum_attributions(
            captum_method("Occlusion", asked.model),
            asked,
            sliding_window_shapes=(channels, side, side),
            strides=(channels, stride, stride),
            baselines=self.value,
        )

    def saliency(self, attributions: Tensor) -> Tensor:
        return attributions.clamp_min(0).mean(1)
