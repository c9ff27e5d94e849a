"""Data sets: uint8 images that live on the device, and what is usual for them.

A data-set file registers a frozen dataclass with one method, ``load``.  It also says what a run
on it starts from when the user says nothing: a model, a radius per norm, a training schedule.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Number, Registry

SplitName = Literal["train", "test"]
UNLABELLED = -100
"""The label of an example that has none: cross-entropy passes over it."""


@dataclass(frozen=True)
class Split:
    """Images ``x`` uint8 (N, C, H, W), labels ``y`` int64 (N), and class names.

    Extra data may have ``UNLABELLED`` examples; a data set has none.
    """

    x: Tensor
    y: Tensor
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.y)

    def to(self, device: torch.device | str) -> "Split":
        """The same images on another device."""
        return replace(self, x=self.x.to(device), y=self.y.to(device))

    def only(self, rows: Tensor | slice) -> "Split":
        """Some of the examples."""
        return replace(self, x=self.x[rows], y=self.y[rows])

    def images(self, rows: Tensor | slice) -> Tensor:
        """float32 images in [0, 1]; the only place where pixels are divided by 255."""
        return self.x[rows].float() / 255

    def fingerprint(self) -> str:
        """sha256 over shape, pixels and labels: two runs saw the same data if it is equal."""
        digest = hashlib.sha256(repr((tuple(self.x.shape), self.classes)).encode())
        digest.update(self.x.cpu().contiguous().numpy().tobytes())
        digest.update(self.y.cpu().numpy().tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class Dataset(ABC):
    """Where the images come from; class attributes say what is usual for them."""

    augment: Literal["none", "crop", "crop-flip"] = "none"
    """Random shifts by up to ``pad`` pixels, and mirror images."""
    pad: Annotated[int, Field(ge=0)] = 4
    """How far ``augment`` shifts an image, in pixels."""
    padding: Literal["zero", "reflect"] = "zero"
    """What comes in at the border then: black, or the image mirrored at its edge."""
    rotate: Annotated[Number, Field(ge=0, le=180)] = 0.0
    """By up to how many degrees images are turned, either way, after all that."""

    mean: ClassVar[tuple[float, ...] | None] = None
    """Published channel statistics; None: measured on the training images."""
    std: ClassVar[tuple[float, ...] | None] = None
    eps: ClassVar[Mapping[str, float]] = {"Linf": 8 / 255, "L2": 0.5, "L1": 12.0}
    """The radius that the literature uses, per norm."""
    defaults: ClassVar[Mapping[str, Any]] = {}
    """Configuration that applies when neither a preset nor the command line says otherwise."""

    @abstractmethod
    def load(self, split: SplitName, root: Path) -> Split:
        """The images, on the CPU.

        Args:
            root: the folder that ``--data-dir`` names; downloads go there.

        Raises:
            UserError: the data is absent and cannot be fetched, it is empty or damaged, or an image
                has no label.
        """

    def pool(self, root: Path) -> Split:
        """The training images as extra data: whoever keeps some without labels overrides this.

        Raises:
            UserError: the data is absent, empty or damaged.
        """
        return self.load("train", root)

    def augmented(self, x: Tensor, noise: Noise) -> Tensor:
        """Shifted, mirrored and turned copies of images ``x`` (B, C, H, W), keyed by example."""
        if self.augment != "none":
            flip = self.augment == "crop-flip"
            x = augment(x, noise, pad=self.pad, flip=flip, padding=self.padding)
        return turned(x, noise, self.rotate) if self.rotate else x


def augment(
    x: Tensor, noise: Noise, *, pad: int, flip: bool, padding: Literal["zero", "reflect"] = "zero"
) -> Tensor:
    """Random crop after padding and, with ``flip``, a mirror image for half of them.

    One gather for the whole batch, on the device of ``x``.
    """
    batch, _, height, width = x.shape
    draw = noise.fork("augment").uniform(x.new_empty(batch, 3, dtype=torch.float32))
    top, left = (draw[:, :2] * (2 * pad + 1)).long().unbind(1)
    rows = top[:, None] + torch.arange(height, device=x.device)
    columns = left[:, None] + torch.arange(width, device=x.device)
    if flip:
        mirrored = (draw[:, 2] < 0.5)[:, None]
        columns = torch.where(mirrored, columns.flip(1), columns)
    if padding == "reflect":
        padded, rows, columns = x, _folded(rows - pad, height), _folded(columns - pad, width)
    else:
        padded = F.pad(x, (pad, pad, pad, pad))
    each = torch.arange(batch, device=x.device)[:, None, None]
    # Advanced indices around a slice put the channels last; put them back.
    return padded[each, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def _folded(index: Tensor, side: int) -> Tensor:
    """Where an index beyond the border falls, once the image is mirrored at its outer pixels."""
    period = max(1, 2 * (side - 1))
    return (side - 1) - (index % period - (side - 1)).abs()


def turned(x: Tensor, noise: Noise, degrees: float) -> Tensor:
    """Images turned about their middle by up to ``degrees``: nearest pixels, black corners."""
    draw = noise.fork("rotate").uniform(x.new_empty(len(x), 1, dtype=torch.float32))
    return rotated(x, (2 * draw.squeeze(1) - 1) * degrees)


def rotated(x: Tensor, degrees: Tensor) -> Tensor:
    """Images (B, C, H, W) turned counter-clockwise by so many degrees each (B)."""
    height, width = x.shape[2:]
    angle = torch.deg2rad(degrees)
    sine, cosine, nothing = angle.sin(), angle.cos(), torch.zeros_like(angle)
    # Where each pixel comes from, in coordinates that run from -1 to 1 along each side.
    across = torch.stack([cosine, -sine * height / width, nothing], 1)
    down = torch.stack([sine * width / height, cosine, nothing], 1)
    where = F.affine_grid(torch.stack([across, down], 1), list(x.shape), align_corners=False)
    return F.grid_sample(x, where.to(x.dtype), mode="nearest", align_corners=False)


DATASETS: Registry[Dataset] = Registry("dataset", __name__)
