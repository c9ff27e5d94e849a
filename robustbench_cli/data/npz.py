"""A file of arrays as ``numpy.savez`` writes it, the usual format of generated and unlabelled sets.

NumPy (Harris et al., 2020), https://numpy.org/doc/stable/reference/generated/numpy.savez.html.
"""

import textwrap
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from robustbench_cli.core.errors import UserError
from robustbench_cli.data import DATASETS, UNLABELLED, SplitName
from robustbench_cli.data.files import Files, UnreadSplit

Array = np.ndarray[Any, np.dtype[Any]]

IMAGES, LABELS = ("image", "x"), ("label", "y")
"""Accepted names of the arrays of images and of labels."""
_ENDINGS: Mapping[SplitName, str] = {"train": "", "test": "_test"}
"""Suffix of the array names of each split."""
MOST = 100_000
"""Largest number of classes; labels must be below it."""


@DATASETS.register("npz", positional="path")
@dataclass(frozen=True, kw_only=True)
class Npz(Files):
    """Arrays ``image`` and ``label`` (or ``x``, ``y``): uint8 (N, H, W, C), (N, C, H, W) or grey
    (N, H, W).

    A test split is in ``image_test`` and ``label_test``; ``--extra-data`` needs none, and no labels
    if a labeller assigns them or none are used.  Classes are numbered up to the highest label; -1
    means that none is known.  Nothing is unpickled: a file cannot run code.
    """

    path: str
    """Path of the file."""

    defaults: ClassVar[Mapping[str, Any]] = {"model": {"name": "preact-resnet-18"}}

    def find(self, split: SplitName, root: Path) -> UnreadSplit:
        name = f"npz:{self.path}"
        with _opened(name, Path(self.path).expanduser()) as file:
            images = _array(file, IMAGES, split)
            if images is None:
                raise UserError(f"{name}: {_absent(file, IMAGES, split)}")
            pixels = _pixels(name, images)
            # Labels of both splits are read, so that they agree on the classes.
            every = {each: _labels(name, file, each) for each in _ENDINGS}
            labels, known = every[split], [held for held in every.values() if held is not None]
            absent = _absent(file, LABELS, split) if labels is None else None
        if labels is None:
            labels = np.full(len(pixels), UNLABELLED)
        if len(pixels) != len(labels):
            raise UserError(f"{name}: {len(pixels)} images and {len(labels)} labels")
        highest = max((int(each.max(initial=-1)) for each in known), default=-1)
        return UnreadSplit(
            name=name,
            y=torch.from_numpy(labels),
            classes=tuple(map(str, range(highest + 1))),
            images=lambda: torch.from_numpy(np.ascontiguousarray(pixels)),
            absent=absent,
        )


@contextmanager
def _opened(name: str, path: Path) -> Iterator[Mapping[str, Array]]:
    """Open a file and yield its arrays by name; each is read when it is accessed.

    Raises:
        UserError: the file is absent or damaged, or holds arrays of objects.
    """
    if not path.is_file():
        raise UserError(f"{name}: no such file")
    try:
        if not zipfile.is_zipfile(path):
            raise UserError(f"{name}: damaged, or not written by numpy.savez")
        # Given a path, NumPy leaves a damaged file open.
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as file:
            yield file
    except UserError:
        raise
    except Exception as error:  # a damaged archive raises errors of many types
        reason = textwrap.shorten(str(error), 120)
        raise UserError(f"{name}: damaged, or arrays of objects ({reason})") from error


def _array(file: Mapping[str, Array], names: Sequence[str], split: SplitName) -> Array | None:
    """Return the array of a split with one of these names; None where there is none."""
    found = [name + _ENDINGS[split] for name in names if name + _ENDINGS[split] in file]
    return file[found[0]] if found else None


def _absent(file: Mapping[str, Array], names: Sequence[str], split: SplitName) -> str:
    """Return the message that a split has no array with any of these names."""
    wanted = " or ".join(repr(name + _ENDINGS[split]) for name in names)
    return f"no array {wanted} in it; it has {', '.join(file)}"


def _pixels(name: str, images: Array) -> Array:
    """Return images as uint8 (N, C, H, W).

    Raises:
        UserError: they have another dtype or shape.
    """
    if images.dtype != np.uint8:
        raise UserError(f"{name}: images must be uint8, 0 to 255, got {images.dtype}")
    if images.ndim == 3:
        return images[:, None]
    shape = images.shape
    last, first = (images.ndim == 4 and shape[axis] in (1, 3) for axis in (3, 1))
    if last == first:
        raise UserError(
            f"{name}: images must be (N, H, W, C) or (N, C, H, W) with 1 or 3 channels, got {shape}"
        )
    return images.transpose(0, 3, 1, 2) if last else images


def _labels(name: str, file: Mapping[str, Array], split: SplitName) -> Array | None:
    """Return the labels of a split as int64 (N); None where it has no such array.

    Raises:
        UserError: they are not whole numbers (N), or one is too high.
    """
    labels = _array(file, LABELS, split)
    if labels is None:
        return None
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise UserError(
            f"{name}: labels must be whole numbers (N), got {labels.dtype} {labels.shape}"
        )
    if labels.max(initial=0) >= MOST:
        raise UserError(f"{name}: label {labels.max()} is too high for {MOST} classes")
    return labels.astype(np.int64)
