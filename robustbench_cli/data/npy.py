"""Two files of arrays as ``numpy.save`` writes them, images and labels.

NumPy (Harris et al., 2020), https://numpy.org/doc/stable/reference/generated/numpy.save.html.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from robustbench_cli.core.cache_folder import file_stamp, remembered
from robustbench_cli.core.errors import UserError
from robustbench_cli.data import DATASETS, SplitName
from robustbench_cli.data._arrays import Array, LabelledArrays, as_pixels, channels_first
from robustbench_cli.data.files import Files, UnreadSplit
from robustbench_cli.data.stored import ImageSource, memory_limit

_AT_ONCE = 64
"""Images that are in memory at a time while a large file is looked through."""


@DATASETS.register("npy", positional="path")
@dataclass(frozen=True, kw_only=True)
class Npy(Files):
    """``npy:images.npy,y=labels.npy``, or a folder with ``x.npy`` and ``y.npy``.

    The arrays are those that ``npz`` takes; large ones are read as they are needed.  A test split
    to a training split is in ``x_test.npy`` and ``y_test.npy`` of the folder; one pair of files by
    itself can be evaluated, and be ``--extra-data``.
    """

    path: str
    """The file of images, or a folder."""
    y: str | None = None
    """The file of labels; None: ``y.npy`` or ``labels.npy`` beside the images."""
    first: Annotated[int, Field(ge=0, le=1)] | None = None
    """Number of the first class; None: 0, or 1 where the labels run from 1 without a gap."""

    defaults: ClassVar[Mapping[str, Any]] = {"model": {"name": "preact-resnet-18"}}

    def find(self, split: SplitName, root: Path) -> UnreadSplit:
        name, place = f"npy:{self.path}", Path(self.path).expanduser()
        if not place.exists():
            raise UserError(f"{name}: no such file or folder")
        pairs = self._pairs(name, place)
        one = "test" not in pairs
        images, labels = pairs["train" if one else split]
        if not images.is_file():
            raise UserError(f"{name}: no file {images.name!r} in it")
        others = [y for x, y in pairs.values() if y is not None and x != images and y.is_file()]
        return LabelledArrays(
            name=name,
            images=_images(name, images),
            labels=None if labels is None else np.array(_array(name, labels)),
            absent=f"no labels: name their file, as in {name},y=labels.npy",
            others=[np.array(_array(name, each)) for each in others],
            first=self.first,
            unfit="no 'x_test.npy' in it; without a test split it can be evaluated or be "
            "--extra-data, not trained on"
            if one and split == "train"
            else None,
        ).unread()

    def _pairs(self, name: str, place: Path) -> dict[SplitName, tuple[Path, Path | None]]:
        """The files of images and of labels, by split; those of the only one as ``train``."""
        if place.is_file():
            beside = [place.with_name(each) for each in ("y.npy", "labels.npy")]
            found = next((each for each in beside if each.is_file() and each != place), None)
            return {"train": (place, Path(self.y).expanduser() if self.y else found)}
        if self.y is not None:
            raise UserError(f"{name}: y={self.y} goes with a file of images, not with a folder")
        pairs: dict[SplitName, tuple[Path, Path | None]] = {"train": self._pair(place, "")}
        if self._pair(place, "_test")[0].is_file():
            pairs["test"] = self._pair(place, "_test")
        return pairs

    def _pair(self, folder: Path, ending: str) -> tuple[Path, Path | None]:
        images = [folder / f"{name}{ending}.npy" for name in ("x", "X", "images")]
        labels = [folder / f"{name}{ending}.npy" for name in ("y", "Y", "labels")]
        found = next((each for each in images if each.is_file()), images[0])
        return found, next((each for each in labels if each.is_file()), None)


def _array(name: str, path: Path) -> Array:
    """Return the array in a file, mapped and not read; nothing is unpickled."""
    if not path.is_file():
        raise UserError(f"{name}: no file {str(path)!r}")
    try:
        found: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # a damaged header raises errors of many types
        raise UserError(f"{path}: damaged, no .npy file, or an array of objects") from error
    if not isinstance(found, np.ndarray):
        raise UserError(f"{path}: this is no .npy file")
    return found


def _images(name: str, path: Path) -> Tensor | ImageSource:
    array = _array(name, path)
    if array.nbytes <= memory_limit():
        return as_pixels(name, array)
    return ArrayFile(name, path)


@dataclass(frozen=True, eq=False)
class ArrayFile(ImageSource):
    """A large array of images; only what is asked for is read."""

    name: str
    path: Path
    slow = False

    @cached_property
    def dtype(self) -> torch.dtype:  # type: ignore[override]
        """uint8 where that loses nothing, else float32, as for arrays that are read at once."""
        if _array(self.name, self.path).dtype == np.uint8:
            return torch.uint8
        state = f"npy levels {self.path.absolute()} {file_stamp(self.path)}"
        key = hashlib.sha256(state.encode()).hexdigest()
        whole = remembered(key, lambda: {"whole_levels": self._whole_levels()})["whole_levels"]
        return torch.uint8 if whole else torch.float32

    @cached_property
    def shape(self) -> tuple[int, int, int, int]:
        count, channels, height, width = channels_first(
            self.name, _array(self.name, self.path)
        ).shape
        return count, channels, height, width

    def read(self, rows: list[int]) -> Tensor:
        # Mapped anew each time: pages of a map that is closed do not count as memory in use.
        found = as_pixels(self.name, np.asarray(_array(self.name, self.path)[rows]))
        same = found.dtype == self.dtype
        return found if same else found.float() / 255

    def digest(self) -> str:
        """Return nothing: the same pixels have one fingerprint, however they are stored."""
        return ""

    def _whole_levels(self) -> bool:
        """Return True if every pixel of every image is a multiple of 1/255."""
        count = self.shape[0]
        starts = range(0, count, _AT_ONCE)
        parts = (_array(self.name, self.path)[first : first + _AT_ONCE] for first in starts)
        return all(as_pixels(self.name, np.asarray(part)).dtype == torch.uint8 for part in parts)
