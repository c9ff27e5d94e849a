"""Images that stay in their files until they are asked for.

A split that fits into little memory is read once and kept, as far as it is used.  A larger one is
read batch by batch, whenever a batch is asked for; worker processes read ahead (PyTorch's
DataLoader; Paszke et al., 2019, https://arxiv.org/abs/1912.01703).
"""

import os
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.transfer import sent
from robustbench_cli.data.decoded_cache import decoded
from robustbench_cli.data.read_ahead import ReadAhead

LIMIT = "ADVBENCH_DATA_MEMORY"
"""Environment variable: the MiB of images that one split may keep in memory."""
_DEFAULT = 256


class ImageSource(ABC):
    """The images of a split in files: N of one shape."""

    dtype: torch.dtype = torch.uint8
    """uint8, 0 to 255; or float32 in [0, 1]."""
    slow: bool = True
    """Whether reading takes so long that the images are kept in the cache."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int, int]:
        """(N, C, H, W)."""

    @abstractmethod
    def read(self, rows: list[int]) -> Tensor:
        """Return the images at these positions (B, C, H, W), on the CPU.

        Raises:
            UserError: a file is missing or damaged; it is named.
        """

    @abstractmethod
    def digest(self) -> str:
        """Return a sha256 that is equal for equal files in the same order, wherever they lie.

        Empty where reading is so fast that the images are told apart by their pixels instead.
        """

    def cache_key(self) -> str:
        """Return the key of the images in the cache, for sources that are slow to read.

        Unlike the hash of the files it may depend on the program that decodes them.
        """
        return self.digest()


def memory_limit() -> int:
    """Return the bytes of images that one split may keep in memory.

    Raises:
        UserError: the environment variable is no number.
    """
    given = os.environ.get(LIMIT, str(_DEFAULT))
    if not given.isdecimal():
        raise UserError(f"{LIMIT}={given}: give a whole number of MiB, such as {_DEFAULT}")
    return int(given) * 2**20


class Kept(NamedTuple):
    """Images that were read into memory, or stay where they are."""

    images: "Tensor | StoredImages"
    notes: tuple[str, ...]
    """What the user should know of it."""


@dataclass(frozen=True, eq=False)
class StoredImages:
    """Some of the images of a source; it can be indexed as a tensor (N, C, H, W) can."""

    source: ImageSource
    rows: Tensor
    """Positions (N) int64 in the source, on the CPU."""
    device: torch.device | str = "cpu"
    """The device that images are returned on."""
    _ahead: list[ReadAhead] = field(default_factory=list, repr=False)
    """What worker processes are reading now; at most one."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, C, H, W)."""
        return (len(self.rows), *self.source.shape[1:])

    @property
    def bytes(self) -> int:
        """The memory that all of them would take."""
        return torch.Size(self.shape).numel() * self.source.dtype.itemsize

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Tensor | slice) -> Tensor:
        """Return the images at ``rows`` (B, C, H, W): indices, a mask, or a slice."""
        wanted = self.rows[rows if isinstance(rows, slice) else rows.cpu()]
        where = torch.device(self.device)
        if self._ahead and (ready := self._ahead[0].take(wanted)) is not None:
            return sent(ready, where)
        return sent(self.source.read(wanted.tolist()), where)

    def only(self, rows: Tensor | slice) -> "StoredImages":
        """Return some of the images; nothing is read."""
        chosen = self.rows[rows if isinstance(rows, slice) else rows.cpu()]
        return StoredImages(self.source, chosen, self.device)

    def expect(self, rows: Tensor) -> None:
        """Let worker processes read the images at ``rows`` (B) in this order.

        They are a bounded number of images ahead of what is asked for.  Whatever is asked for in
        another order is read as if nothing had been said.
        """
        while self._ahead:
            self._ahead.pop().close()
        if ReadAhead.pays(len(rows)):
            self._ahead.append(ReadAhead(self.source.read, self.rows[rows.cpu()]))

    def to(self, device: torch.device | str) -> Kept:
        """Return the images on a device: read into memory if they are few, else read later."""
        if self.bytes > memory_limit():
            return Kept(replace(self, device=device, _ahead=[]), ())
        images, notes = self._in_memory
        return Kept(images.to(device), notes)

    @cached_property
    def whole(self) -> Tensor:
        """All images (N, C, H, W) in memory, however many they are, on the CPU."""
        return self._in_memory[0]

    @cached_property
    def _in_memory(self) -> tuple[Tensor, tuple[str, ...]]:
        source = self.source
        if not source.slow or self.bytes > memory_limit():
            return source.read(self.rows.tolist()), ()
        return decoded(source.cache_key(), source.read, self.rows)
