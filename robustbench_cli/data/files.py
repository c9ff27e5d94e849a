"""Base of data sets that the user names by a path (folder, npz, hf).

As extra data such a set needs neither labels nor a test split: Carmon et al. (2019),
https://arxiv.org/abs/1905.13736, train on 500,000 images without labels.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from robustbench_cli.core.errors import UserError
from robustbench_cli.data import UNLABELLED, Dataset, Split, SplitName
from robustbench_cli.data.stored import ImageSource, StoredImages


@dataclass(frozen=True, kw_only=True)
class UnreadSplit:
    """A split with labels whose images may still be in their files."""

    name: str
    """Name of the data set in messages, as in ``--dataset``."""
    y: Tensor
    """Labels int64 (N), indices into ``classes``; negative where none is known."""
    classes: tuple[str, ...]
    images: Tensor | ImageSource
    """Images (N, C, H, W), or the files that hold them."""
    named: Callable[[], Sequence[str]] | None = None
    """Returns the names (N) of the images; None: they have none."""
    notes: tuple[str, ...] = ()
    """What the user should know of how the data was read."""
    absent: str | None = None
    """Reason why there are no labels, if one is known."""
    unfit: str | None = None
    """Reason why the set can serve as extra data only, although it has all labels."""

    def whole(self) -> Split:
        """Return the split for use as a data set.

        Raises:
            UserError: an image has no label, there are fewer than two classes, or it cannot be
                read.
        """
        missing = int((self.y < 0).sum())
        if missing or self.absent:
            why = self.absent or f"{missing} of {len(self.y)} images have no label"
            raise UserError(
                f"{self.name}: {why} (images without labels can be --extra-data, with --labeller "
                "RUN or --set train.extra_labels=none)"
            )
        if self.unfit:
            raise UserError(f"{self.name}: {self.unfit}")
        if len(self.classes) < 2:
            raise UserError(f"{self.name}: at least 2 classes are needed, got {len(self.classes)}")
        return self.split()

    def split(self) -> Split:
        """Return the split for use as extra data, with ``UNLABELLED`` where no label is known.

        Raises:
            UserError: there are no images, a label is not below the number of classes, or they
                cannot be read.
        """
        if not len(self.y):
            raise UserError(f"{self.name}: no images")
        classes, high = len(self.classes), int(self.y.max())
        if high >= classes:
            raise UserError(
                f"{self.name}: labels must be 0..{classes - 1}, one for each class, got "
                f"{int(self.y.min())}..{high}"
            )
        images = self.images
        if isinstance(images, Tensor):
            stored: Tensor | StoredImages = images
        else:
            stored = StoredImages(images, torch.arange(len(self.y)))
        labels = self.y.where(self.y >= 0, UNLABELLED)
        return Split(stored, labels, self.classes, named=self.named, notes=self.notes)


class Files(Dataset):
    """Base of data sets that the user names by a path."""

    @abstractmethod
    def find(self, split: SplitName, root: Path) -> UnreadSplit:
        """Return a split with its labels, without reading its images.

        Raises:
            UserError: it is absent or damaged.
        """

    def load(self, split: SplitName, root: Path) -> Split:
        return self.find(split, root).whole()

    def pool(self, root: Path) -> Split:
        return self.find("train", root).split()
