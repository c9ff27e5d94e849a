"""Reduced bit depth (Xu et al., 2018; Guo et al., 2018).

https://arxiv.org/abs/1704.01155, feature squeezing; https://arxiv.org/abs/1711.00117.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from robustbench_cli.input_defenses import INPUT_DEFENSES, Backward, DefenseContext, InputDefense


@INPUT_DEFENSES.register("bit-depth", positional="bits")
@dataclass(frozen=True, kw_only=True)
class BitDepth(InputDefense):
    """Round every pixel to one of 2^bits levels from 0 to 1.

    Broken by the identity in the backward pass (Athalye et al., 2018,
    https://arxiv.org/abs/1802.00420).
    """

    hides: ClassVar[str] = "rounding, whose gradient is zero everywhere"
    backwards: ClassVar[tuple[Backward, ...]] = ("straight-through",)

    bits: Annotated[int, Field(ge=1, le=8)] = 3
    """Bits of each pixel and channel; 3 as in Guo et al."""

    def cleaned(self, x: Tensor, context: DefenseContext) -> Tensor:
        levels = float(2**self.bits - 1)
        return (x * levels).round() / levels
