"""Changes of brightness (Wang et al., 2021), https://arxiv.org/abs/1906.03563, section 4.4."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor

from robustbench_cli.core.registry import Number
from robustbench_cli.transforms import TRANSFORMS, Transform


@TRANSFORMS.register("brightness")
@dataclass(frozen=True, kw_only=True)
class Brightness(Transform):
    """Add a constant to every pixel and clip to [0, 1]."""

    by: Annotated[Number, Field(ge=-1, le=1)] = 0.1
    """The constant, for pixels in [0, 1]."""

    def __call__(self, x: Tensor) -> Tensor:
        return (x + self.by).clamp(0, 1)


@TRANSFORMS.register("gamma")
@dataclass(frozen=True, kw_only=True)
class Gamma(Transform):
    """Raise every pixel to a power (gamma correction)."""

    power: Annotated[Number, Field(gt=0)] = 1.3
    """The exponent; above 1 the image becomes darker."""

    def __call__(self, x: Tensor) -> Tensor:
        # For an exponent below 1 the derivative at 0 is infinite, and infinity times zero is NaN.
        return x.clamp_min(1e-6) ** self.power
