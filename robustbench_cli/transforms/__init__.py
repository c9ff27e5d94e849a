"""What may be done to an image before a model sees it: differentiable, and the same every time.

Those of Wang et al., 2021, https://arxiv.org/abs/1906.03563, section 4.4: an attack that fools a
model under all of them survives them.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from robustbench_cli.core.registry import Number, Registry
from robustbench_cli.data import rotated


class Transform(ABC):
    """A change of images (B, C, H, W) in [0, 1] to such images."""

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor: ...


TRANSFORMS: Registry[Transform] = Registry("transform", __name__)


@TRANSFORMS.register("identity")
@dataclass(frozen=True, kw_only=True)
class Identity(Transform):
    """The image as it is."""

    def __call__(self, x: Tensor) -> Tensor:
        return x


@TRANSFORMS.register("flip")
@dataclass(frozen=True, kw_only=True)
class Flip(Transform):
    """The mirror image, left for right."""

    def __call__(self, x: Tensor) -> Tensor:
        return x.flip(-1)


@TRANSFORMS.register("flip-vertical")
@dataclass(frozen=True, kw_only=True)
class FlipVertical(Transform):
    """The mirror image, top for bottom."""

    def __call__(self, x: Tensor) -> Tensor:
        return x.flip(-2)


@TRANSFORMS.register("brightness")
@dataclass(frozen=True, kw_only=True)
class Brightness(Transform):
    """The same added to every pixel, as far as the box allows."""

    by: Annotated[Number, Field(ge=-1, le=1)] = 0.1
    """How much."""

    def __call__(self, x: Tensor) -> Tensor:
        return (x + self.by).clamp(0, 1)


@TRANSFORMS.register("gamma")
@dataclass(frozen=True, kw_only=True)
class Gamma(Transform):
    """Every pixel to a power."""

    power: Annotated[Number, Field(gt=0)] = 1.3
    """Which: above one is darker."""

    def __call__(self, x: Tensor) -> Tensor:
        # Below one the slope at black is infinite, and infinity times zero is no number.
        return x.clamp_min(1e-6) ** self.power


@TRANSFORMS.register("zoom")
@dataclass(frozen=True, kw_only=True)
class Zoom(Transform):
    """The middle of the image, enlarged to its size."""

    share: Annotated[Number, Field(gt=0, le=1)] = 0.8
    """How much of each side is kept."""

    def __call__(self, x: Tensor) -> Tensor:
        where = torch.eye(2, 3, dtype=x.dtype, device=x.device) * self.share
        grid = F.affine_grid(where.expand(len(x), 2, 3), list(x.shape), align_corners=False)
        return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


@TRANSFORMS.register("rotate")
@dataclass(frozen=True, kw_only=True)
class Rotate(Transform):
    """The image turned counter-clockwise about its middle; what comes in at the border is black."""

    degrees: Annotated[Number, Field(ge=-180, le=180)] = 30.0
    """How far."""

    def __call__(self, x: Tensor) -> Tensor:
        return rotated(x, torch.full_like(x[:, 0, 0, 0], self.degrees))
