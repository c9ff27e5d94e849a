"""Where the object is in an image: masks and boxes, given in files or found on black grounds."""

import csv
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robustbench_cli.core.errors import UserError
from robustbench_cli.runs.records import sha256

PixelBox = tuple[float, float, float, float]
"""x0, y0, x1, y1 in pixels from the upper left corner; x1 and y1 are the first ones outside."""
_WHOLE = 0.9
"""A mask with more than this share of the pixels says nothing of where the object is."""
_FIELDS = ("index", "x0", "y0", "x1", "y1")


@dataclass(frozen=True, kw_only=True)
class PlaceOptions:
    """What the command line says of where objects are."""

    above: float = 0.0
    """Pixels with a channel above this are the object, where no masks are given."""
    masks: Path | None = None
    """An .npz file with an array ``mask`` (N, H, W) of zeros and ones, one for each test image."""
    boxes: Path | None = None
    """A .csv file, or an .npz file with ``index`` (M) and ``box`` (M, 4)."""

    @property
    def described(self) -> dict[str, Any]:
        """What a record keeps of it: files by their content."""
        files = {"masks": self.masks, "boxes": self.boxes}
        named = {key: sha256(path) for key, path in files.items() if path is not None}
        return {"above": self.above, **named}


@dataclass(frozen=True, kw_only=True)
class ObjectPlaces:
    """The places of the objects in N images."""

    masks: Tensor
    """bool (N, H, W); where one is all true or all false the object's place is not known."""
    boxes: Mapping[int, list[PixelBox]] = field(default_factory=dict)
    """By the row of the image."""
    unknown: str = ""
    """Why no masks are used; empty: they are."""

    def only(self, rows: slice) -> Tensor:
        """Return the masks of these rows, bool (B, H, W)."""
        return self.masks[rows]


def object_places(options: PlaceOptions, x: Tensor, ids: Tensor) -> ObjectPlaces:
    """Return where the objects are in the images ``x`` (N, C, H, W) in [0, 1].

    Args:
        ids: the images' positions in the test split (N), by which files name them.

    Raises:
        UserError: a file cannot be read, or does not fit the images.
    """
    boxes = _boxes(options.boxes, ids.tolist(), x.shape[2:]) if options.boxes else {}
    if options.masks is not None:
        return ObjectPlaces(masks=_read_masks(options.masks, x, ids), boxes=boxes)
    masks = (x > options.above).any(1)
    whole = masks.flatten(1).float().mean(1) > _WHOLE
    unknown = ""
    if float(whole.float().mean()) > 0.5:
        unknown = (
            f"most images have no dark ground (over {_WHOLE:.0%} of the pixels are above "
            f"{options.above:g}), so their objects are not known: give --masks FILE.npz"
        )
    return ObjectPlaces(masks=masks & ~whole[:, None, None], boxes=boxes, unknown=unknown)


def _read_masks(path: Path, x: Tensor, ids: Tensor) -> Tensor:
    try:
        with np.load(path.expanduser(), allow_pickle=False) as archive:
            array = archive["mask"]
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError):
        raise UserError(f"--masks {path}: no .npz file with an array 'mask'") from None
    if array.ndim != 3 or not np.isin(array, (0, 1)).all():
        raise UserError(
            f"--masks {path}: expected zeros and ones (N, H, W), got {array.dtype} {array.shape}"
        )
    if tuple(array.shape[1:]) != tuple(x.shape[2:]):
        raise UserError(
            f"--masks {path}: masks of {tuple(array.shape[1:])}, images of {tuple(x.shape[2:])}"
        )
    if len(array) <= int(ids.max()):
        raise UserError(
            f"--masks {path}: {len(array)} masks; image {int(ids.max())} (from 0) has none"
        )
    return torch.from_numpy(array.astype(bool)).to(x.device)[ids]


def _boxes(path: Path, ids: list[int], sides: torch.Size) -> dict[int, list[PixelBox]]:
    """Return the boxes in a file by the row of the image; those of other images are left out."""
    rows = {number: row for row, number in enumerate(ids)}
    found = defaultdict(list)
    for index, x0, y0, x1, y1 in _box_lines(path.expanduser()):
        if not (0 <= x0 < x1 <= sides[1] and 0 <= y0 < y1 <= sides[0]):
            raise UserError(
                f"--boxes {path}: box {x0:g},{y0:g},{x1:g},{y1:g} of image {index:g} is empty or "
                f"outside images of {sides[1]} pixels across and {sides[0]} down"
            )
        if int(index) in rows:
            found[rows[int(index)]].append((x0, y0, x1, y1))
    if not found:
        raise UserError(f"--boxes {path}: no box of an image that is explained")
    return dict(found)


def _box_lines(path: Path) -> list[list[float]]:
    expected = f"expected lines {','.join(_FIELDS)}, or arrays 'index' (M) and 'box' (M, 4)"
    lines: list[list[float]]
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                index, box = archive["index"], archive["box"]
            lines = np.concatenate([index[:, None], box], 1).astype(float).tolist()
        else:
            with path.open(newline="") as file:
                typed = [line for line in csv.reader(file) if line]
            lines = [[float(word) for word in line] for line in typed[_has_title(typed) :]]
    except OSError as error:
        raise UserError(f"--boxes {path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, IndexError, TypeError, UnicodeDecodeError, csv.Error):
        raise UserError(f"--boxes {path}: {expected}") from None
    if any(len(line) != len(_FIELDS) or not np.isfinite(line).all() for line in lines):
        raise UserError(f"--boxes {path}: {expected}")
    return lines


def _has_title(lines: list[list[str]]) -> bool:
    return bool(lines) and [word.strip() for word in lines[0]] == [*_FIELDS]
