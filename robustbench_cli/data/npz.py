"""A file of arrays as ``numpy.savez`` writes it, the usual format of generated and unlabelled sets.

NumPy (Harris et al., 2020), https://numpy.org/doc/stable/reference/generated/numpy.savez.html.
"""

import textwrap
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from robustbench_cli.core.errors import UserError
from robustbench_cli.data import DATASETS, SplitName
from robustbench_cli.data._arrays import Array, LabelledArrays, as_pixels
from robustbench_cli.data.files import Files, UnreadSplit

IMAGES, LABELS = ("image", "x", "images"), ("label", "y", "labels")
"""Accepted names of the arrays of images and of labels, in any case."""
ARRAY_ENDINGS: Mapping[SplitName, tuple[str, ...]] = {
    "train": ("", "_train"),
    "test": ("_test", "_val"),
}
"""Suffixes of the array names of each split."""


@DATASETS.register("npz", positional="path")
@dataclass(frozen=True, kw_only=True)
class Npz(Files):
    """Arrays ``image`` and ``label`` (or ``x``, ``y``): (N, H, W, C), (N, C, H, W) or grey
    (N, H, W), as uint8 or as floats in [0, 1].

    Floats are kept as they are unless every pixel is a multiple of 1/255.  Labels are whole numbers
    (-1 means that none is known), one-hot rows, or texts.  A test split is in ``image_test`` and
    ``label_test``; a file without one can be evaluated, and be ``--extra-data``, which needs no
    labels if a labeller assigns them or none are used.  Classes are numbered up to the highest
    label.  Nothing is unpickled: a file cannot run code.
    """

    path: str
    """Path of the file."""
    first: Annotated[int, Field(ge=0, le=1)] | None = None
    """Number of the first class; None: 0, or 1 where the labels run from 1 without a gap."""

    defaults: ClassVar[Mapping[str, Any]] = {"model": {"name": "preact-resnet-18"}}

    def find(self, split: SplitName, root: Path) -> UnreadSplit:
        name = f"npz:{self.path}"
        with _opened(name, Path(self.path).expanduser()) as file:
            arrays = {key.lower(): key for key in file}
            one = not any(_named(arrays, IMAGES, "test"))
            wanted: SplitName = "train" if one else split
            images = next((file[key] for key in _named(arrays, IMAGES, wanted)), None)
            if images is None:
                raise UserError(f"{name}: {_absent(file, IMAGES, wanted)}")
            labels = {
                each: [file[key] for key in _named(arrays, LABELS, each)][:1]
                for each in ARRAY_ENDINGS
            }
            own, other = labels[wanted], labels["test" if wanted == "train" else "train"]
            return LabelledArrays(
                name=name,
                images=as_pixels(name, images),
                labels=own[0] if own else None,
                absent=_absent(file, LABELS, wanted),
                others=other,
                first=self.first,
                unfit=f"{_absent(file, IMAGES, 'test')}; without a test split it can be evaluated "
                "or be --extra-data, not trained on"
                if one and split == "train"
                else None,
            ).unread()


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


def _named(arrays: Mapping[str, str], names: Sequence[str], split: SplitName) -> list[str]:
    """Return the arrays of a split that have one of these names, the best first."""
    wanted = [name + ending for ending in ARRAY_ENDINGS[split] for name in names]
    return [arrays[name] for name in wanted if name in arrays]


def _absent(file: Mapping[str, Array], names: Sequence[str], split: SplitName) -> str:
    """Return the message that a split has no array with any of these names."""
    wanted = " or ".join(repr(name + ARRAY_ENDINGS[split][0]) for name in names[:2])
    return f"no array {wanted} in it; it has {', '.join(file)}"
