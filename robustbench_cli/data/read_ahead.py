"""Worker processes that read images before they are asked for, in a known order.

PyTorch's DataLoader (Paszke et al., 2019), https://arxiv.org/abs/1912.01703.
"""

import gc
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from robustbench_cli.core.errors import RunError, UserError

_CHUNK = 16
"""Images that a worker reads at a time."""
_WORTH = 4 * _CHUNK
"""The fewest images for which starting processes pays."""
_MOST_WORKERS = 8
_AHEAD = 2
"""Chunks that each worker is ahead."""


class ReadAhead:
    """Images in a given order, read by worker processes; memory does not grow with their number."""

    def __init__(self, read: Callable[[list[int]], Tensor], rows: Tensor) -> None:
        """Start the workers.

        Args:
            read: returns the images at some positions; it runs in the workers.
            rows: the positions (N) int64, in the order in which they will be asked for.
        """
        self._rows, self._next = rows, 0
        self._loader: Iterator[_Chunk] | None = iter(
            DataLoader(
                _Chunks(read, rows),
                batch_size=None,
                num_workers=min(_MOST_WORKERS, os.cpu_count() or 1),
                prefetch_factor=_AHEAD,
                worker_init_fn=_leave_shared_pages,
                # Its own: torch's, which nets draw from, stays as it is.
                generator=torch.Generator(),
            )
        )
        self._held: list[Tensor] = []

    @staticmethod
    def pays(count: int) -> bool:
        """Return True if reading so many images is worth the start of processes."""
        return count >= _WORTH

    def take(self, rows: Tensor) -> Tensor | None:
        """Return the images at ``rows`` (B) if they are the next ones, else None.

        Raises:
            UserError: a file is missing or damaged; it is named.
            RunError: a worker process died.
        """
        if self._loader is None or not len(rows):
            return None
        if not torch.equal(self._rows[self._next : self._next + len(rows)], rows):
            return None
        while sum(map(len, self._held)) < len(rows):
            self._held.append(self._receive())
        every = torch.cat(self._held)
        self._held = [every[len(rows) :].clone()]
        self._next += len(rows)
        if self._next == len(self._rows):
            self.close()
        return every[: len(rows)]

    def close(self) -> None:
        """End the workers."""
        self._loader, self._held = None, []

    def _receive(self) -> Tensor:
        assert self._loader is not None
        try:
            chunk = next(self._loader)
        except RuntimeError as error:  # torch's words for a worker that was killed
            raise RunError(f"a process that reads images died ({error})") from error
        if chunk.images is None:
            raise UserError(chunk.error)
        return torch.from_numpy(chunk.images)


def _leave_shared_pages(_worker: int) -> None:
    """Keep a worker's garbage collection off the objects that were there before it.

    It writes to every object that it looks at, so that each worker would copy, page by page, what
    it shares with the process that started it.  That process keeps its own collector as it is.
    """
    gc.freeze()


@dataclass(frozen=True)
class _Chunk:
    """What a worker sends: images, or its error in one line, which torch would wrap in many."""

    images: np.ndarray | None
    """An array, which is copied to the reader: a tensor would stay in the worker's memory."""
    error: str = ""


@dataclass(frozen=True)
class _Chunks(Dataset[_Chunk]):
    """The order of reading, cut into chunks."""

    read: Callable[[list[int]], Tensor]
    rows: Tensor

    def __len__(self) -> int:
        return -(-len(self.rows) // _CHUNK)

    def __getitem__(self, index: int) -> _Chunk:
        try:
            rows = self.rows[index * _CHUNK : (index + 1) * _CHUNK]
            return _Chunk(self.read(rows.tolist()).numpy())
        except UserError as error:
            return _Chunk(None, str(error))
