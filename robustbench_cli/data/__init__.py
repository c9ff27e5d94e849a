"""Data sets: images on the device or in files, and the settings that are usual for them.

A data-set file registers a frozen dataclass with one method, ``load``.  Its class attributes give
the defaults of a run: a model, a radius per norm, a training schedule.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Number, Registry
from robustbench_cli.data.stored import StoredImages

SplitName = Literal["train", "test"]
Padding = Literal["zero", "reflect", "nearest"]
UNLABELLED = -100
"""Label of an example without one; cross-entropy ignores it."""
_HASHED_AT_ONCE = 64
"""Images that a fingerprint has in memory at a time, where they are not there anyway."""


@dataclass(frozen=True)
class Split:
    """Images with labels: uint8 or, where that would change them, float32 in [0, 1].

    Extra data may have ``UNLABELLED`` examples; a data set has none.
    """

    stored: Tensor | StoredImages
    """Images (N, C, H, W): in memory, or in files until they are asked for."""
    y: Tensor
    """Labels (N) int64."""
    classes: tuple[str, ...]
    """Names of the classes."""
    mark: str = ""
    """Hash of the files that the images come from; it stands for their pixels in fingerprints.
    Empty: they are told apart by their pixels."""
    own_ids: Tensor | None = None
    """Positions (N) int64 in the split as it was loaded; None: 0 to N - 1."""
    named: Callable[[], Sequence[str]] | None = None
    """Returns the names of all images of the split as it was loaded; None: they have none."""
    notes: tuple[str, ...] = ()
    """What the user should know of how the data was read."""

    def __len__(self) -> int:
        return len(self.y)

    @property
    def x(self) -> Tensor:
        """All images (N, C, H, W) in memory, however many they are."""
        return self.stored if isinstance(self.stored, Tensor) else self.stored.whole

    @property
    def streamed(self) -> bool:
        """True if images are read from their files each time that they are asked for."""
        return isinstance(self.stored, StoredImages)

    @property
    def image_shape(self) -> torch.Size:
        """(C, H, W)."""
        return torch.Size(self.stored.shape[1:])

    @property
    def ids(self) -> Tensor:
        """Positions (N) int64 in the split as it was loaded, which key an example's draws."""
        return (
            torch.arange(len(self), device=self.y.device) if self.own_ids is None else self.own_ids
        )

    @property
    def names(self) -> list[str]:
        """Names (N) of the images, such as paths of files; empty where they have none."""
        if self.named is None:
            return []
        every = self.named()
        return [every[row] for row in self.ids.tolist()]

    def to(self, device: torch.device | str) -> "Split":
        """Return the split on another device; images in files are read if they are few.

        Raises:
            UserError: a file is damaged; it is named.
        """
        stored, notes, mark = self.stored, self.notes, self.mark
        if isinstance(stored, StoredImages):
            mark = stored.source.digest()
            stored, more = stored.to(device)
            notes += more
        else:
            stored = stored.to(device)
        ids = None if self.own_ids is None else self.own_ids.to(device)
        return replace(
            self, stored=stored, y=self.y.to(device), mark=mark, own_ids=ids, notes=notes
        )

    def only(self, rows: Tensor | slice) -> "Split":
        """Return the split with these examples only (int64 indices, a mask, or a slice)."""
        stored = self.stored[rows] if isinstance(self.stored, Tensor) else self.stored.only(rows)
        return replace(self, stored=stored, y=self.y[rows], own_ids=self.ids[rows])

    def images(self, rows: Tensor | slice) -> Tensor:
        """Return the images of these examples as float32 (B, C, H, W) in [0, 1].

        This is the only place where pixels are divided by 255.
        """
        found = self.stored[rows]
        return found.clone() if found.is_floating_point() else found.float() / 255

    def expect(self, rows: Tensor) -> None:
        """Say in which order ``images`` will be asked for, so that files can be read ahead.

        Args:
            rows: indices (B) int64.
        """
        if isinstance(self.stored, StoredImages):
            self.stored.expect(rows)

    def fingerprint(self) -> str:
        """Return a sha256 that is equal for equal images, labels and class names.

        Images in image files are told apart by the content of the files and by their positions,
        and not decoded; those in arrays, in memory or not, by their pixels.
        """
        digest = hashlib.sha256(repr((tuple(self.stored.shape), self.classes)).encode())
        mark = self.mark
        if isinstance(self.stored, StoredImages):
            mark = mark or self.stored.source.digest()
        if mark:
            digest.update(mark.encode())
            digest.update(self.ids.cpu().numpy().tobytes())
        else:
            for first in range(0, len(self), _HASHED_AT_ONCE):
                part = self.stored[first : first + _HASHED_AT_ONCE]
                digest.update(part.cpu().contiguous().numpy().tobytes())
        digest.update(self.y.cpu().numpy().tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class Dataset(ABC):
    """The source of the images; class attributes give the settings that are usual for them."""

    augment: Literal["none", "crop", "crop-flip"] = "none"
    """Random shifts by up to ``pad`` pixels (crop), and mirror images (crop-flip)."""
    pad: Annotated[int, Field(ge=0)] = 4
    """Largest shift of ``augment``, in pixels."""
    padding: Padding = "zero"
    """Content beyond the border of a shifted image: black (zero), the image mirrored at its edge
    (reflect), or its edge repeated (nearest)."""
    rotate: Annotated[Number, Field(ge=0, le=180)] = 0.0
    """Largest rotation in degrees, either way, applied after shift and flip."""

    mean: ClassVar[tuple[float, ...] | None] = None
    """Published mean of each channel in [0, 1]; None: measured on the training images."""
    std: ClassVar[tuple[float, ...] | None] = None
    """Published standard deviation of each channel; None: measured on the training images."""
    eps: ClassVar[Mapping[str, float]] = {"Linf": 8 / 255, "L2": 0.5, "L1": 12.0}
    """Radius that is usual in the literature, by norm, for pixels in [0, 1]."""
    defaults: ClassVar[Mapping[str, Any]] = {}
    """Configuration for all that neither a preset nor the command line sets."""

    @abstractmethod
    def load(self, split: SplitName, root: Path) -> Split:
        """Return the images and labels of a split, on the CPU or still in their files.

        Args:
            root: the folder given by ``--data-dir``; downloads go there.

        Raises:
            UserError: the data is absent and cannot be fetched, it is empty or damaged, or an image
                has no label.
        """

    def at_hand(self, root: Path) -> bool:
        """Return whether both splits can be read without a download.

        Args:
            root: the folder given by ``--data-dir``.
        """
        return True

    def pool(self, root: Path) -> Split:
        """Return the training images as extra data; sets that may lack labels override this.

        Raises:
            UserError: the data is absent, empty or damaged.
        """
        return self.load("train", root)

    def augmented(self, x: Tensor, noise: Noise) -> Tensor:
        """Return shifted, mirrored and rotated copies of images ``x`` (B, C, H, W) in [0, 1].

        Args:
            noise: keyed by example, so that the copies do not depend on the batch.
        """
        if self.augment != "none":
            flip = self.augment == "crop-flip"
            x = augment(x, noise, pad=self.pad, flip=flip, padding=self.padding)
        return turned(x, noise, self.rotate) if self.rotate else x


def augment(x: Tensor, noise: Noise, *, pad: int, flip: bool, padding: Padding = "zero") -> Tensor:
    """Return random crops (B, C, H, W) of padded images; with ``flip`` half of them are mirrored.

    One gather operation for the whole batch, on the device of ``x``.

    Args:
        x: images (B, C, H, W) in [0, 1].
        noise: keyed by example.
        pad: pixels added on each side.
        padding: black, the image mirrored at its outer pixels, or these repeated.
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
    elif padding == "nearest":
        padded = x
        rows, columns = (rows - pad).clamp(0, height - 1), (columns - pad).clamp(0, width - 1)
    else:
        padded = F.pad(x, (pad, pad, pad, pad))
    each = torch.arange(batch, device=x.device)[:, None, None]
    # Advanced indices around a slice move the channels to the end; move them back.
    return padded[each, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def _folded(index: Tensor, side: int) -> Tensor:
    """Return the indices inside 0..side-1 that mirroring at the outer pixels gives."""
    period = max(1, 2 * (side - 1))
    return (side - 1) - (index % period - (side - 1)).abs()


def turned(x: Tensor, noise: Noise, degrees: float) -> Tensor:
    """Return images (B, C, H, W) rotated about their middle by a random angle of up to ``degrees``.

    Nearest-neighbour interpolation; corners that come in are black.
    """
    draw = noise.fork("rotate").uniform(x.new_empty(len(x), 1, dtype=torch.float32))
    return rotated(x, (2 * draw.squeeze(1) - 1) * degrees)


def rotated(x: Tensor, degrees: Tensor) -> Tensor:
    """Return images (B, C, H, W) rotated counter-clockwise, nearest-neighbour, with black corners.

    Args:
        degrees: the angle of each image (B).
    """
    height, width = x.shape[2:]
    angle = torch.deg2rad(degrees)
    sine, cosine, nothing = angle.sin(), angle.cos(), torch.zeros_like(angle)
    # The source of each output pixel, in coordinates from -1 to 1 along each side.
    across = torch.stack([cosine, -sine * height / width, nothing], 1)
    down = torch.stack([sine * width / height, cosine, nothing], 1)
    where = F.affine_grid(torch.stack([across, down], 1), list(x.shape), align_corners=False)
    return F.grid_sample(x, where.to(x.dtype), mode="nearest", align_corners=False)


DATASETS: Registry[Dataset] = Registry("dataset", __name__)
