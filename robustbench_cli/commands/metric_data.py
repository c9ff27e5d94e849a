"""The images of metric learning: those that it trains on, and those among which it retrieves."""

from pathlib import Path

from robustbench_cli.config.schema import Embedding
from robustbench_cli.core.errors import UserError
from robustbench_cli.data import Dataset, Split


def training_images(dataset: Dataset, embedding: Embedding, root: Path) -> Split:
    """Return the training images; with a zero-shot split those of its training classes only.

    Raises:
        UserError: the data is absent or damaged, or has too few classes.
    """
    if not embedding.split_classes:
        return dataset.load("train", root)
    whole = dataset.pool(root)
    return whole.only(whole.y < _boundary(whole, embedding))


def retrieval_images(dataset: Dataset, embedding: Embedding, root: Path) -> Split:
    """Return the test images; with a zero-shot split those of its other classes only.

    Raises:
        UserError: the data is absent or damaged, or has too few classes.
    """
    whole = dataset.load("test", root)
    if not embedding.split_classes:
        return whole
    return whole.only(whole.y >= _boundary(whole, embedding))


def _boundary(whole: Split, embedding: Embedding) -> int:
    """Return the number of training classes."""
    classes = len(whole.classes)
    count = embedding.train_classes or classes // 2
    if not 2 <= count <= classes - 2:
        raise UserError(
            f"a zero-shot split leaves at least 2 classes on either side: {count} of {classes} "
            "are for training (embedding.train_classes)"
        )
    return count
