"""What a model of somebody else does to the size of its images: scaling, then a cut of the centre.

The rules are those of torchvision's transforms (TorchVision maintainers, 2016),
https://docs.pytorch.org/vision/stable/transforms.html, and of transformers' image processors (Wolf
et al., 2019), https://arxiv.org/abs/1910.03771.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn

Resample = Literal["nearest", "bilinear", "bicubic"]


class ResizeImages(nn.Module):
    """Images (B, C, H, W) to another height and width, blurred first where they shrink."""

    def __init__(self, size: tuple[int, int], resample: Resample) -> None:
        super().__init__()
        self.size, self.resample = size, resample

    def forward(self, x: Tensor) -> Tensor:
        if self.resample == "nearest":
            return F.interpolate(x, self.size, mode="nearest")
        out = F.interpolate(x, self.size, mode=self.resample, align_corners=False, antialias=True)
        return out.clamp(0, 1) if self.resample == "bicubic" else out

    def extra_repr(self) -> str:
        return f"{by(self.size)}, {self.resample}"


class CutCentre(nn.Module):
    """The centre of images (B, C, H, W), a pixel up and left of it where it cannot be halved.

    A side that is too short is filled up with black.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        lacks = [max(0, own - given) for own, given in zip(self.size, x.shape[2:], strict=True)]
        if any(lacks):
            down, across = lacks
            x = F.pad(x, (across // 2, -(-across // 2), down // 2, -(-down // 2)))
        top, left = ((given - own) // 2 for own, given in zip(self.size, x.shape[2:], strict=True))
        return x[:, :, top : top + self.size[0], left : left + self.size[1]]

    def extra_repr(self) -> str:
        return by(self.size)


@dataclass(frozen=True, kw_only=True)
class Reshaping:
    """How images are brought to the size that a model takes; by itself they stay as they are."""

    size: tuple[int, int] | None = None
    """Height and width that images are resized to."""
    shorter_side: int | None = None
    """Pixels that the shorter side is scaled to instead; the image keeps its proportions."""
    crop: tuple[int, int] | None = None
    """Height and width of the centre that is cut out after that."""
    resample: Resample = "bilinear"

    def scaled(self, shape: Sequence[int]) -> tuple[int, int]:
        """Return height and width before the cut of images of this height and width."""
        height, width = shape
        if self.size or not self.shorter_side:
            return self.size or (height, width)
        longer = int(self.shorter_side * max(shape) / min(shape))
        return (self.shorter_side, longer) if height <= width else (longer, self.shorter_side)

    def for_images(self, shape: Sequence[int]) -> "Reshaping":
        """Return the part of it that changes images of this height and width."""
        scaled = self.scaled(shape)
        return Reshaping(
            size=None if scaled == tuple(shape) else scaled,
            crop=None if self.crop == scaled else self.crop,
            resample=self.resample,
        )

    def layers(self) -> list[nn.Module]:
        """Return the layers that do it to images of the height and width it is for."""
        found: list[nn.Module] = []
        if self.size:
            found.append(ResizeImages(self.size, self.resample))
        if self.crop:
            found.append(CutCentre(self.crop))
        return found

    @property
    def settings(self) -> dict[str, Any]:
        """What the record says of it; empty: images stay as they are."""
        resized = {"resize": list(self.size), "resample": self.resample} if self.size else {}
        return resized | ({"crop": list(self.crop)} if self.crop else {})

    def said(self, shape: Sequence[int]) -> str:
        """Return in words what is done to images of this height and width."""
        done = [f"resized to {by(self.size)} ({self.resample})"] if self.size else []
        done += [f"cut to the {by(self.crop)} in their centre"] if self.crop else []
        return (
            f"images of {by(shape)} are {' and '.join(done)} inside the model; eps is in their own "
            "pixels"
        )


def by(size: Sequence[int]) -> str:
    """Return a size in words: 224x224."""
    return "x".join(map(str, size))
