"""Masks that somebody drew."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from robustbench_cli.core.errors import UserError
from robustbench_cli.masks import MASKS, Mask, Sight

DIGITS = 16
"""Of a hash, enough to tell files apart."""


@MASKS.register("file", positional="path")
@dataclass(frozen=True, kw_only=True)
class File(Mask):
    """Pixels may change where an array is true: ``file:PATH`` with ``mask`` in an .npz.

    Its shape is (H, W) for all images alike or, one for each test image from the first,
    (N, H, W) or (N, C, H, W); it holds zeros and ones only.
    """

    path: str
    """The .npz file."""
    sha256: str = ""
    """How the hash of its content begins, which records keep; given, the file must have it."""

    def __post_init__(self) -> None:
        try:
            found = hashlib.sha256(Path(self.path).expanduser().read_bytes()).hexdigest()
        except OSError as error:
            raise ValueError(f"{self.path!r} cannot be read: {error.strerror}") from None
        if not found.startswith(self.sha256):
            raise ValueError(f"{self.path!r} is not the recorded file: its sha256 differs")
        object.__setattr__(self, "sha256", found[:DIGITS])
        _ = self._drawn

    @cached_property
    def _drawn(self) -> Tensor:
        """The array as it is stored, bool."""
        try:
            with np.load(Path(self.path).expanduser(), allow_pickle=False) as held:
                drawn = held["mask"]
        except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError):
            raise ValueError(f"{self.path!r} is no .npz file with an array 'mask'") from None
        if not 2 <= drawn.ndim <= 4 or not np.isin(drawn, (0, 1)).all():
            raise ValueError(
                f"the mask in {self.path!r} must hold zeros and ones of shape (H, W), (N, H, W) or "
                f"(N, C, H, W), got {drawn.dtype} {drawn.shape}"
            )
        return torch.from_numpy(drawn.astype(bool))

    def open(self, sight: Sight) -> Tensor:
        drawn, shape = self._drawn, tuple(sight.x.shape[1:])
        if drawn.ndim == 2:
            found = drawn.expand(len(sight.x), 1, *drawn.shape)
        elif sight.ids is None:
            raise UserError(
                f"mask {self.path!r} has an array for each image, but in training images are "
                "shuffled and moved: give one (H, W) for all"
            )
        elif int(sight.ids.max()) >= len(drawn):
            raise UserError(
                f"mask {self.path!r} is for {len(drawn)} images, image number "
                f"{int(sight.ids.max()) + 1} has none"
            )
        else:
            found = drawn[sight.ids.cpu()].view(len(sight.ids), -1, *drawn.shape[-2:])
        if tuple(found.shape[1:]) not in (shape, (1, *shape[1:])):
            raise UserError(
                f"mask {self.path!r} has shape {tuple(drawn.shape)}, the images are {shape}"
            )
        return found.to(sight.x.device)
