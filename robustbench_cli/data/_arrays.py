"""Arrays of images and labels as people store them, brought into one form.

NumPy (Harris et al., 2020), https://numpy.org/doc/stable/reference/generated/numpy.save.html.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robustbench_cli.core.errors import UserError
from robustbench_cli.data import UNLABELLED
from robustbench_cli.data._columns import FROM_ONE
from robustbench_cli.data.files import UnreadSplit
from robustbench_cli.data.pixels import exact_pixels
from robustbench_cli.data.stored import ImageSource

Array = np.ndarray[Any, np.dtype[Any]]

MOST = 100_000
"""Largest number of classes; labels must be below it."""


@dataclass(frozen=True, kw_only=True)
class LabelledArrays:
    """Arrays of a data set as they were found."""

    name: str
    """Name of the data set in messages."""
    images: Tensor | ImageSource
    """The images (N, C, H, W) of the split that is wanted."""
    labels: Array | None
    """Their labels, in any form; None where there are none."""
    absent: str | None = None
    """Reason why there are no labels."""
    others: Sequence[Array] = field(default_factory=list)
    """Labels of the other split, which must agree on the classes."""
    first: int | None = None
    """The number of the first class; None: 0, or 1 where labels run from 1 without a gap."""
    unfit: str | None = None
    """Reason why the split cannot be a data set's."""

    def unread(self) -> UnreadSplit:
        """Return the split.

        Raises:
            UserError: labels of a form that means nothing, or not as many as images.
        """
        images = self.images
        count = len(images) if isinstance(images, Tensor) else images.shape[0]
        given = [] if self.labels is None else [self.labels]
        numbers, classes, notes = numbered(self.name, [*given, *self.others], self.first)
        own = numbers[0] if given else np.full(count, UNLABELLED, np.int64)
        if count != len(own):
            raise UserError(f"{self.name}: {count} images and {len(own)} labels")
        return UnreadSplit(
            name=self.name,
            y=torch.from_numpy(own),
            classes=classes,
            images=images,
            notes=notes,
            absent=self.absent if self.labels is None else None,
            unfit=self.unfit,
        )


def numbered(
    name: str, arrays: Sequence[Array], first: int | None
) -> tuple[list[Array], tuple[str, ...], tuple[str, ...]]:
    """Return labels as class numbers int64 (N) each, the names of the classes, and notes.

    Args:
        name: the data set in messages.
        arrays: whole numbers (N) or (N, 1), one-hot rows (N, K), or texts (N); of all splits.
        first: the number of the first class; None: see ``LabelledArrays``.

    Raises:
        UserError: another form, or a number that is too high.
    """
    if arrays and all(each.dtype.kind in "US" for each in arrays):
        texts = [np.char.decode(a, "utf-8") if a.dtype.char in "S" else a for a in arrays]
        known = np.unique(np.concatenate([each.reshape(-1) for each in texts]))
        found = [np.searchsorted(known, each.reshape(-1)).astype(np.int64) for each in texts]
        return found, tuple(map(str, known)), ()
    numbers = [_whole_numbers(name, each) for each in arrays]
    every = np.unique(np.concatenate([np.zeros(0, np.int64), *numbers]))
    seen = every[every >= 0]
    # The columns of one-hot rows say which classes there are, also those without an image.
    columns = [each.shape[1] for each in arrays if each.ndim == 2 and each.shape[1] > 1]
    if columns:
        seen = np.arange(max(columns))
    highest = int(seen.max(initial=-1))
    if highest >= MOST:
        raise UserError(f"{name}: label {highest} is too high for {MOST} classes")
    from_one = len(seen) > 1 and np.array_equal(seen, np.arange(1, highest + 1))
    start = int(from_one) if first is None else first
    if len(seen) and seen[0] < start:
        raise UserError(f"{name}: first={start}, but there is a label {seen[0]}")
    said = FROM_ONE.format(highest) + " (first=0 takes them as they are)"
    shifted = [np.where(each >= 0, each - start, each) for each in numbers]
    names = tuple(map(str, range(start, highest + 1)))
    return shifted, names, (said,) * (from_one and first is None)


def _whole_numbers(name: str, labels: Array) -> Array:
    """Return labels as int64 (N); negative ones mean that none is known."""
    got = f"got {labels.dtype} {labels.shape}"
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 2 and labels.dtype.kind in "biuf":
        hot = labels.astype(np.float64)
        if not (np.isin(hot, (0, 1)).all() and (hot.sum(1) == 1).all()):
            raise UserError(f"{name}: labels (N, K) must be one-hot, each row a single 1, {got}")
        return np.asarray(hot.argmax(1), dtype=np.int64)
    if labels.dtype.kind in "f" and np.isfinite(labels).all() and (labels % 1 == 0).all():
        labels = labels.astype(np.int64)
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise UserError(
            f"{name}: labels must be whole numbers (N), one-hot rows (N, K) or texts, {got}"
        )
    if labels.max(initial=0) >= MOST:
        raise UserError(f"{name}: label {labels.max()} is too high for {MOST} classes")
    return labels.astype(np.int64)


def channels_first(name: str, images: Array) -> Array:
    """Return images as (N, C, H, W), as a view.

    Args:
        images: (N, H, W, C), (N, C, H, W), or grey (N, H, W).

    Raises:
        UserError: they have another dtype or shape.
    """
    if images.dtype != np.uint8 and images.dtype.kind != "f":
        raise UserError(
            f"{name}: images must be uint8, 0 to 255, or floats in [0, 1], got {images.dtype}"
        )
    if images.ndim == 3:
        return images[:, None]
    shape = images.shape
    last, first = (images.ndim == 4 and shape[axis] in (1, 3) for axis in (3, 1))
    if last == first:
        raise UserError(
            f"{name}: images must be (N, H, W, C) or (N, C, H, W) with 1 or 3 channels, got {shape}"
        )
    return images.transpose(0, 3, 1, 2) if last else images


def as_pixels(name: str, images: Array) -> Tensor:
    """Return images (N, C, H, W) as uint8 where that loses nothing, else as float32 in [0, 1].

    Raises:
        UserError: they have another dtype, shape or range.
    """
    ordered = channels_first(name, images)
    native = ordered.dtype.newbyteorder("=")
    kind = np.float64 if native.itemsize > np.dtype(np.float64).itemsize else native
    try:
        return exact_pixels(torch.from_numpy(np.array(ordered, dtype=kind, order="C")))
    except UserError as error:
        raise UserError(f"{name}: {error}") from None
