"""Several processes that share one run: ``torchrun --nproc-per-node N -m robustbench_cli``.

Each process computes its own rows.  In an evaluation a verdict depends on its example alone, so
the distribution of the examples does not matter; in training all processes make the same update
from the summed gradients of all rows (see ``sync_layers``).  The main process writes the record.
"""

import ctypes
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, distributed
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from robustbench_cli.core.errors import RunError, UserError
from robustbench_cli.distributed import env

_T = TypeVar("_T")

_TIMEOUT = timedelta(days=7)
"""The time that a process waits for the others; attacks may differ in duration by hours."""
_PAUSE = 0.5
"""Seconds between a failure and the end of the process group."""
_FAILURE = "failure"
"""The key of the store under which the first process that fails writes its error."""


@dataclass(frozen=True)
class Shard:
    """This process's part of a run, and the collective operations on all processes."""

    rank: int = 0
    world: int = 1
    """The number of processes."""
    store: Store | None = None
    """A key-value store that all processes can access without waiting for each other."""

    @property
    def is_main(self) -> bool:
        """True in the process that writes the record and prints."""
        return self.rank == 0

    @property
    def rows(self) -> slice:
        """The rows of a batch, or of a data set, that are this process's: every world-th one."""
        return slice(self.rank, None, self.world)

    def mine(self, n: int) -> np.ndarray:
        """Return a bool mask (n) of the examples that are this process's."""
        return np.asarray(np.arange(n) % self.world == self.rank)

    def all_gather(self, value: _T) -> list[_T]:
        """Return every process's value, ordered by rank, in every process."""
        if self.world == 1:
            return [value]
        values: list[_T | None] = [None] * self.world
        distributed.all_gather_object(values, value)
        return values  # type: ignore[return-value]

    def merge_rows(self, arrays: dict[str, np.ndarray], n: int, seconds: float = 0.0) -> float:
        """Fill ``arrays`` (n, ...), in place, with the rows of all processes.

        Args:
            seconds: the time that this process took for its rows.

        Returns:
            The largest time of all processes.
        """
        mine = self.mine(n).nonzero()[0]
        part = {key: values[mine] for key, values in arrays.items()}
        parts = self.all_gather((mine, part, seconds))
        for rows, theirs, _ in parts:
            for key, values in theirs.items():
                arrays[key][rows] = values
        return max(spent for _, _, spent in parts)

    def broadcast_from_main(self, make: Callable[[], _T]) -> _T:
        """Call ``make`` in the main process only and return its value in every process."""
        return self.all_gather(make() if self.is_main else None)[0]  # type: ignore[return-value]

    @contextmanager
    def main_process_first(self) -> Iterator[None]:
        """Run the block in the main process first, e.g. to write a file that the others read."""
        if self.world > 1 and not self.is_main:
            distributed.barrier()
        yield
        if self.world > 1 and self.is_main:
            distributed.barrier()

    def all_reduce_sum_(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all processes, in place and in one message."""
        self._flattened(tensors, distributed.all_reduce)

    def broadcast_(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by the main process's, in place and in one message per dtype."""
        for kind in sorted({t.dtype for t in tensors}, key=str):
            same = [t for t in tensors if t.dtype == kind]
            self._flattened(same, lambda flat: distributed.broadcast(flat, 0))

    def _flattened(self, tensors: Sequence[Tensor], send: Callable[[Tensor], object]) -> None:
        """Apply ``send`` in place to the concatenation of the tensors; do nothing if alone."""
        if self.world == 1 or not tensors:
            return
        flat = torch.cat([t.detach().reshape(-1) for t in tensors])
        send(flat)
        parts = torch.split(flat, [t.numel() for t in tensors])
        for own, part in zip(tensors, parts, strict=True):
            own.detach().copy_(part.view_as(own))

    @contextmanager
    def share_failure(self) -> Iterator[None]:
        """Raise the error of the first process that fails in every process.

        A process that waits for one that has failed gets a closed connection, or is ended by the
        launcher; instead of that it raises the error that ended the other one.

        Raises:
            RunError: another process ended without an error of its own, or with an unknown one.
        """
        try:
            yield
        except BaseException as error:
            lost = isinstance(error, distributed.DistError) or "/gloo/" in str(error)
            mine = RunError("another process of this run is gone") if lost else error
            own = f"{type(mine).__name__}\n{mine}"
            first = self.store.compare_set(_FAILURE, "", own).decode() if self.store else own
            if first == own and not lost:
                raise
            kind, _, text = first.partition("\n")
            known = {each.__name__: each for each in (KeyboardInterrupt, UserError, RunError)}
            raise (known[kind](text) if kind in known else RunError(f"{kind}: {text}")) from None


ALONE = Shard()
"""The shard of a single process, which has all rows."""


@contextmanager
def join_processes(device: str) -> Iterator[Shard]:
    """Join the launcher's process group and yield this process's shard; ``ALONE`` without one.

    Args:
        device: the value of ``--device``, which decides the backend: nccl on GPUs, else gloo.
    """
    if env.world() == 1:
        yield ALONE
        return
    store, rank, world = next(rendezvous("env://", timeout=_TIMEOUT))
    shard = Shard(rank, world, store)
    # Inside, too: a process must have written its error before the group closes its connections.
    with shard.share_failure(), _process_group(shard, store, device), shard.share_failure():
        yield shard


@contextmanager
def _process_group(shard: Shard, store: Store, device: str) -> Iterator[None]:
    """Keep torch's process group open for the block."""
    gpu = torch.cuda.is_available() and device.startswith(("auto", "cuda"))
    if gpu:
        torch.cuda.set_device(local(device))
    distributed.init_process_group(
        "nccl" if gpu else "gloo",
        store=PrefixStore("group", store),
        rank=shard.rank,
        world_size=shard.world,
        timeout=_TIMEOUT,
    )
    group = distributed.group.WORLD
    try:
        yield
    except BaseException:
        # The others wait for connections to close; the pause lets gloo's threads finish first.
        del group
        time.sleep(_PAUSE)
        distributed.destroy_process_group()
        raise
    distributed.destroy_process_group()
    _never_deallocate(group)


def _never_deallocate(value: object) -> None:
    """Keep an object until the process ends, whatever else refers to it.

    Deallocating gloo's process group joins its worker threads while it holds the interpreter's
    lock.  A worker that still has to release the tensors of the last message waits for that lock:
    with torch 2.6 both wait for ever, with torch 2.14 the process aborts as it ends ("terminate
    called without an active exception").  Both were seen on a busy machine, in one of fifty runs.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(value))


def local(device: str) -> str:
    """Return ``device``, with this process's GPU where it is ``cuda``, or ``auto`` with GPUs."""
    rank = env.local_rank()
    automatic = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    return f"cuda:{rank}" if rank is not None and automatic else device
