"""The 8x8 digits of scikit-learn (Alpaydin and Kaynak, 1998), https://doi.org/10.24432/C50P49.

1,797 handwritten digits that come with the package: nothing to download.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from robustbench_cli.data import DATASETS, Dataset, Split, SplitName


@DATASETS.register("digits")
@dataclass(frozen=True, kw_only=True)
class Digits(Dataset):
    """1,297 training and 500 test scans, the same share of every digit in both."""

    pad: Annotated[int, Field(ge=0)] = 1
    """How far ``augment`` shifts an image; the usual 4 pixels are half of one here."""

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
        values, labels = load_digits(return_X_y=True)
        rows = dict(
            zip(
                ("train", "test"),
                train_test_split(
                    np.arange(len(labels)), test_size=500, random_state=0, stratify=labels
                ),
                strict=True,
            )
        )[split]
        # Counts of inked pixels in 4x4 blocks, 0 to 16.
        pixels = np.rint(values[rows] * 255 / 16).astype(np.uint8).reshape(-1, 1, 8, 8)
        return Split(
            torch.from_numpy(pixels),
            torch.from_numpy(labels[rows].astype(np.int64)),
            tuple(map(str, range(10))),
        )
