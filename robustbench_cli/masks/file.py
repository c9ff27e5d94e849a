"""Masks read from a file."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from robustbench_cli.core.errors import UserError
from robustbench_cli.masks import MASKS, Mask, MaskContext

_HASH_DIGITS = 16
"""Hexadecimal digits of the hash that records keep."""


@MASKS.register("file", positional="path")
@dataclass(frozen=True, kw_only=True)
class File(Mask):
    """Pixels may change where the array ``mask`` of an .npz file is true: ``file:PATH``.

    Its shape is (H, W), the same for all images, or (N, H, W) or (N, C, H, W) with one mask for
    each test image, in order; it holds zeros and ones only.
    """

    path: str
    """The .npz file."""
    sha256: str = ""
    """The first digits of the SHA-256 of the file, which records keep; if given, the file must
    match."""

    def __post_init__(self) -> None:
        """Read the file and compare its hash.

        Raises:
            ValueError: the file cannot be read, is not the recorded one, or holds no mask.
        """
        try:
            found = hashlib.sha256(Path(self.path).expanduser().read_bytes()).hexdigest()
        except OSError as error:
            raise ValueError(f"{self.path!r} cannot be read: {error.strerror}") from None
        if not found.startswith(self.sha256):
            raise ValueError(f"{self.path!r} is not the recorded file: its sha256 differs")
        object.__setattr__(self, "sha256", found[:_HASH_DIGITS])
        _ = self._array

    @cached_property
    def _array(self) -> Tensor:
        """The array as it is stored, bool (H, W), (N, H, W) or (N, C, H, W)."""
        try:
            with np.load(Path(self.path).expanduser(), allow_pickle=False) as archive:
                array = archive["mask"]
        except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError):
            raise ValueError(f"{self.path!r} is no .npz file with an array 'mask'") from None
        if not 2 <= array.ndim <= 4 or not np.isin(array, (0, 1)).all():
            raise ValueError(
                f"the mask in {self.path!r} must hold zeros and ones of shape (H, W), (N, H, W) or "
                f"(N, C, H, W), got {array.dtype} {array.shape}"
            )
        return torch.from_numpy(array.astype(bool))

    @property
    def fixed(self) -> bool:
        return self._array.ndim == 2

    def selected(self, context: MaskContext) -> Tensor:
        """Return the images' masks, bool (B, 1 or C, H, W).

        Raises:
            UserError: the array has another shape than the images, too few masks, or, in training,
                one mask per image.
        """
        array, shape = self._array, tuple(context.x.shape[1:])
        if array.ndim == 2:
            found = array.expand(len(context.x), 1, *array.shape)
        elif context.ids is None:
            raise UserError(
                f"mask {self.path!r} has an array for each image, but in training images are "
                "shuffled and moved: give one (H, W) for all"
            )
        elif int(context.ids.max()) >= len(array):
            raise UserError(
                f"mask {self.path!r} is for {len(array)} images, image number "
                f"{int(context.ids.max()) + 1} has none"
            )
        else:
            found = array[context.ids.cpu()].view(len(context.ids), -1, *array.shape[-2:])
        if tuple(found.shape[1:]) not in (shape, (1, *shape[1:])):
            raise UserError(
                f"mask {self.path!r} has shape {tuple(array.shape)}, the images are {shape}"
            )
        return found.to(context.x.device)
