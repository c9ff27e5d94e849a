"""Data sets as somebody left them on disk: as extra data they need no labels, and no test split.

Carmon et al. (2019), https://arxiv.org/abs/1905.13736, train on 500,000 images without labels.
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
    """A split whose images are not read yet, because that takes longer than to look at labels."""

    name: str
    """What messages call it, as ``--dataset`` does."""
    y: Tensor
    """Labels int64 (N), numbers of ``classes``; a negative one says that none is known."""
    classes: tuple[str, ...]
    images: Callable[[], Tensor]
    """Reads them, uint8 (N, C, H, W)."""
    absent: str | None = None
    """Why there are no labels, where more is known than that they are missing."""
    unfit: str | None = None
    """Why it can be extra data at most, though it has all labels."""

    def whole(self) -> Split:
        """The split of a data set.

        Raises:
            UserError: an image has no label, there are under two classes, or it cannot be read.
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
        """The images, read now, with ``UNLABELLED`` where no label is known.

        Raises:
            UserError: there are none, a label is beyond the classes, or they cannot be read.
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
    """A data set that its user names by a path."""

    @abstractmethod
    def find(self, split: SplitName, root: Path) -> UnreadSplit:
        """What there is of a split.

        Raises:
            UserError: it is absent or damaged.
        """

    def load(self, split: SplitName, root: Path) -> Split:
        return self.find(split, root).whole()

    def pool(self, root: Path) -> Split:
        return self.find("train", root).split()
