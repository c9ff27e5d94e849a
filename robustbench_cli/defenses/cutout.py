"""Cutout (DeVries & Taylor, 2017), https://arxiv.org/abs/1708.04552, applied before the attack as
in Rice et al. (2020), https://arxiv.org/abs/2002.11569."""

from dataclasses import dataclass, replace
from typing import Annotated, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from robustbench_cli.core.errors import UserError
from robustbench_cli.defenses import DEFENSES, Modifier
from robustbench_cli.defenses._step import Setting, Step


@DEFENSES.register("cutout")
@dataclass(frozen=True, kw_only=True)
class Cutout(Modifier):
    """Set one random square of each image to zero before the attack, which may change it again.

    The square lies wholly inside the image, as in Rice et al.'s code, whose best length is 14
    pixels of CIFAR's 32.  DeVries & Taylor let it reach beyond the border.
    """

    length: Annotated[int, Field(ge=1)] | None = None
    """Side of the square in pixels; None: 7/16 of the image's shorter side, 14 of 32."""

    def small(self, side: int) -> Self:
        return replace(self, length=min(self.length, side // 2)) if self.length else self

    def auxiliary(self, setting: Setting) -> nn.Module | None:
        side = min(setting.shape.height, setting.shape.width)
        if self.length and self.length > side:
            raise UserError(f"cutout:length={self.length}: the images have {side} pixels a side")
        return None

    def inputs(self, step: Step) -> Step:
        length = self.length or 7 * min(step.x.shape[2:]) // 16
        draw = step.noise.fork("cutout").uniform(step.x.new_empty(len(step.x), 2))

        def covered(side: int, draw: Tensor) -> Tensor:
            """Return bool (B, side): the rows, or columns, that each image's square covers."""
            first = (draw * (side - length + 1)).long()
            place = torch.arange(side, device=draw.device) - first[:, None]
            return (place >= 0) & (place < length)

        rows, columns = (covered(step.x.shape[2 + i], draw[:, i]) for i in (0, 1))
        square = rows[:, None, :, None] & columns[:, None, None, :]
        return replace(step, x=step.x.masked_fill(square, 0))
