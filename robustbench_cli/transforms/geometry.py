"""Crops and rotations (Wang et al., 2021), https://arxiv.org/abs/1906.03563, section 4.4."""

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from robustbench_cli.core.registry import Number
from robustbench_cli.data import rotated
from robustbench_cli.transforms import TRANSFORMS, Transform


@TRANSFORMS.register("zoom")
@dataclass(frozen=True, kw_only=True)
class Zoom(Transform):
    """Crop the centre of the image and enlarge it to the image's size (bilinear)."""

    share: Annotated[Number, Field(gt=0, le=1)] = 0.8
    """The share of each side that the crop keeps."""

    def __call__(self, x: Tensor) -> Tensor:
        scale = torch.eye(2, 3, dtype=x.dtype, device=x.device) * self.share
        grid = F.affine_grid(scale.expand(len(x), 2, 3), list(x.shape), align_corners=False)
        return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


@TRANSFORMS.register("rotate")
@dataclass(frozen=True, kw_only=True)
class Rotate(Transform):
    """Rotate the image counter-clockwise about its centre, with black outside the image."""

    degrees: Annotated[Number, Field(ge=-180, le=180)] = 30.0
    """The angle in degrees."""

    def __call__(self, x: Tensor) -> Tensor:
        return rotated(x, torch.full_like(x[:, 0, 0, 0], self.degrees))
