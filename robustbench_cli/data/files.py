"""Base of data sets that the user names by a path (folder, npz, hf).

As extra data such a set needs neither labels nor a test split: Carmon et al. (2019),
https://arxiv.org/abs/1905.13736, train on 500,000 images without labels.
"""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from robustbench_cli.core.errors import UserError
from robustbench_cli.data import UNLABELLED, Dataset, Split, SplitName


@dataclass(frozen=True, kw_only=True)
class UnreadSplit:
    """A split with labels whose images are not read yet, because reading them takes long."""

    name: str
    """Name of the data set in messages, as in ``--dataset``."""
    y: Tensor
    """Labels int64 (N), indices into ``classes``; negative where none is known."""
    classes: tuple[str, ...]
    images: Callable[[], Tensor]
    """Reads the images, uint8 (N, C, H, W)."""
    absent: str | None = None
    """Reason why there are no labels, if one is known."""
    unfit: str | None = None
    """Reason why the set can serve as extra data only, although it has all labels."""

    def whole(self) -> Split:
        """Return the split for use as a data set, images read.

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
        """Return the split for use as extra data, images read, with ``UNLABELLED`` where no label
        is known.

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
        return Split(self.images(), self.y.where(self.y >= 0, UNLABELLED), self.classes)


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
