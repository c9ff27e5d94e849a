"""The 8x8 digits of scikit-learn (Alpaydin and Kaynak, 1998), https://doi.org/10.24432/C50P49.

1,797 handwritten digits that are part of the package: nothing is downloaded.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field

from robustbench_cli.core.errors import UserError
from robustbench_cli.data import DATASETS, Dataset, Split, SplitName

ROWS = Path(__file__).with_name("digits_rows.txt")
"""Indices of the scans, training split first, as ``train_test_split(range(1797), test_size=500,
random_state=0, stratify=labels)`` of scikit-learn drew them once; fixed here so that no later
version changes the splits."""
TRAIN = 1297
"""Number of training scans."""


@DATASETS.register("digits")
@dataclass(frozen=True, kw_only=True)
class Digits(Dataset):
    """1,297 training and 500 test scans, stratified by class."""

    pad: Annotated[int, Field(ge=0)] = 1
    """Largest shift of ``augment``, in pixels; the usual 4 are half of an image here."""

    mean: ClassVar[tuple[float, ...] | None] = (0.0,)
    std: ClassVar[tuple[float, ...] | None] = (1.0,)
    eps: ClassVar[Mapping[str, float]] = {"Linf": 0.15, "L2": 1.0, "L1": 4.0}
    defaults: ClassVar[Mapping[str, Any]] = {
        "model": {"name": "digits-cnn"},
        "optimizer": {"name": "adam"},
        "schedule": {"name": "cosine"},
        "train": {"epochs": 20, "lr": 0.002},
    }

    def load(self, split: SplitName, root: Path) -> Split:
        pixels, labels = _parsed(split)
        classes = tuple(map(str, range(10)))
        return Split(torch.from_numpy(pixels.copy()), torch.from_numpy(labels.copy()), classes)


@cache
def _parsed(split: SplitName) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixels (N, 1, 8, 8) and the labels (N) of a split; parsed once in a process."""
    table = np.loadtxt(_scans(), delimiter=",")
    drawn = np.array(ROWS.read_text().split(), dtype=np.int64)
    table = table[{"train": drawn[:TRAIN], "test": drawn[TRAIN:]}[split]]
    # Values count the inked pixels of 4x4 blocks, 0 to 16; the last column is the class.
    pixels = np.rint(table[:, :-1] * 255 / 16).astype(np.uint8).reshape(-1, 1, 8, 8)
    return pixels, table[:, -1].astype(np.int64)


def _scans() -> Path:
    """Return the data file inside scikit-learn, without importing the package, which takes a
    second.

    Raises:
        UserError: scikit-learn is not installed.
    """
    package = find_spec("sklearn")
    where = package.submodule_search_locations if package else None
    file = Path(*(where or [""])[:1], "datasets", "data", "digits.csv.gz")
    if not file.is_file():
        raise UserError("the digits come with scikit-learn, which is not there: pip install it")
    return file
