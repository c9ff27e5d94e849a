"""Images and labels as callers have them, checked and turned into a test set."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from robustbench_cli.core.errors import UserError
from robustbench_cli.data import Split
from robustbench_cli.data.pixels import exact_pixels

_Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
LabelInput: TypeAlias = Tensor | _Array | Sequence[int]
Batches: TypeAlias = Iterable[Any]
"""A DataLoader, or anything else that yields pairs (images, labels)."""
ImageInput: TypeAlias = Tensor | _Array | Batches

_CHANNELS = (1, 3)
"""Channels by which an array's layout is recognised."""


def read_images(x: ImageInput, y: LabelInput | None) -> tuple[Tensor, Tensor]:
    """Return images (N, C, H, W) and labels int64 (N), checked.

    The images are uint8, 0 to 255, where every pixel is a multiple of 1/255, and float32 in [0, 1]
    otherwise: a set has the same fingerprint whether it is given as bytes or as floats.

    Args:
        x: a tensor (N, C, H, W); an array (N, C, H, W) or (N, H, W, C) with 1 or 3 channels; or a
            DataLoader that yields pairs of these and labels.  uint8, or float in [0, 1].
        y: labels (N), whole numbers from 0; None with a DataLoader.

    Raises:
        UserError: another type, shape or range, NaN pixels, or no images at all.
    """
    if isinstance(x, Tensor | np.ndarray):
        if y is None:
            raise UserError("labels are missing: give y, or a DataLoader that yields (x, y)")
        pairs: Iterable[tuple[Any, Any]] = [(x, y)]
    elif isinstance(x, list | tuple | str | dict) or not isinstance(x, Iterable):
        raise UserError(
            f"images must be a tensor, an array or a DataLoader, got {type(x).__name__}"
        )
    elif y is not None:
        raise UserError("a DataLoader yields its own labels: leave y out")
    else:
        pairs = _batches(x)
    images, labels = [], []
    for batch, named in pairs:
        images.append(exact_pixels(_channels_first(batch)))
        labels.append(_whole_numbers(named))
        if len(images[-1]) != len(labels[-1]):
            raise UserError(f"{len(images[-1])} images and {len(labels[-1])} labels")
    if not sum(map(len, images)):
        raise UserError("no images")
    if len({tuple(part.shape[1:]) for part in images}) > 1:
        raise UserError("the batches of a DataLoader must hold images of one shape")
    if len({part.dtype for part in images}) > 1:  # some batches fit into bytes, others do not
        images = [float_images(part) for part in images]
    return torch.cat(images), torch.cat(labels)


def float_images(images: Tensor) -> Tensor:
    """Return checked images (N, C, H, W) as float32 in [0, 1]."""
    return images if images.is_floating_point() else images.float() / 255


def as_split(images: Tensor, labels: Tensor, classes: int) -> Split:
    """Return checked images and labels as a test set whose classes are called "0", "1", ...

    Args:
        images: (N, C, H, W), uint8 or floats in [0, 1].
        labels: int64 (N).

    Raises:
        UserError: a label is not among the classes.
    """
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise UserError(
            f"labels must be 0..{classes - 1}, one for each class of the model, got {low}..{high}"
        )
    return Split(images, labels.to(images.device), tuple(map(str, range(classes))))


def _batches(loader: Batches) -> Iterator[tuple[Any, Any]]:
    """Yield the pairs of a DataLoader."""
    for batch in loader:
        if not isinstance(batch, list | tuple) or len(batch) != 2:
            got = f"{len(batch)} parts" if isinstance(batch, list | tuple) else type(batch).__name__
            raise UserError(f"a DataLoader must yield pairs (images, labels), got {got}")
        yield batch[0], batch[1]


def _channels_first(x: Any) -> Tensor:
    """Return images as a tensor (N, C, H, W); raise ``UserError`` where that is not clear."""
    if not isinstance(x, Tensor | np.ndarray):
        raise UserError(f"images must be tensors or arrays, got {type(x).__name__}")
    if x.ndim != 4:
        raise UserError(f"images must be (N, C, H, W), got {tuple(x.shape)}")
    if isinstance(x, Tensor):
        return x.detach()
    if x.dtype != np.uint8 and x.dtype.kind != "f":
        raise UserError(f"images must be uint8 or float in [0, 1], got {x.dtype}")
    first, last = x.shape[1] in _CHANNELS, x.shape[3] in _CHANNELS
    if first == last:
        raise UserError(
            "an array of images must be (N, C, H, W) or (N, H, W, C) with 1 or 3 channels, got "
            f"{x.shape}; a tensor is always (N, C, H, W)"
        )
    ordered = x.transpose(0, 3, 1, 2) if last else x
    wide = x.dtype.itemsize > np.dtype(np.float64).itemsize
    # A copy: torch cannot take negative strides, foreign byte orders or read-only arrays.
    kind = np.float64 if wide else x.dtype.newbyteorder("=")
    return torch.from_numpy(np.array(ordered, dtype=kind, order="C"))


def _whole_numbers(y: Any) -> Tensor:
    """Return labels as int64 (N); raise ``UserError`` for anything else."""
    if isinstance(y, Tensor):
        y = y.detach().cpu()
    try:
        labels = np.asarray(y)
    except (TypeError, ValueError):
        raise UserError("labels must be whole numbers (N)") from None
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise UserError(f"labels must be whole numbers (N), got {labels.dtype} {labels.shape}")
    return torch.from_numpy(labels.astype(np.int64))
