"""Several processes that share one run: ``torchrun --nproc-per-node N -m robustbench_cli``.

Every process does rows of its own.  In an evaluation a verdict depends on its example alone, so
how they are dealt out does not matter; in training all processes make the same update, from the
gradients of everyone's rows (see ``whole``).  The first one writes the record.
"""

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

PATIENCE = timedelta(days=7)
"""How long a process may wait for the others: attacks take as long as they take."""
FAILURE = "failure"
"""Where the first process that fails says why."""


@dataclass(frozen=True)
class Shard:
    """Which of the processes this is."""

    rank: int = 0
    world: int = 1
    store: Store | None = None
    """What all processes can read and write without waiting for each other."""

    @property
    def is_main(self) -> bool:
        """Whether this process writes the record and speaks to the user."""
        return self.rank == 0

    @property
    def rows(self) -> slice:
        """Which rows of a batch, or of a set, are this process's."""
        return slice(self.rank, None, self.world)

    def mine(self, n: int) -> np.ndarray:
        """Which of ``n`` examples are this process's (n)."""
        return np.asarray(np.arange(n) % self.world == self.rank)

    def all_gather(self, value: _T) -> list[_T]:
        """Everyone's value, in order, for everyone."""
        if self.world == 1:
            return [value]
        values: list[_T | None] = [None] * self.world
        distributed.all_gather_object(values, value)
        return values  # type: ignore[return-value]

    def merge_rows(self, arrays: dict[str, np.ndarray], n: int, seconds: float = 0.0) -> float:
        """Put everyone's examples together, ``n`` in all; the time is that of the slowest."""
        mine = self.mine(n).nonzero()[0]
        part = {key: values[mine] for key, values in arrays.items()}
        everyone = self.all_gather((mine, part, seconds))
        for rows, theirs, _ in everyone:
            for key, values in theirs.items():
                arrays[key][rows] = values
        return max(spent for _, _, spent in everyone)

    def broadcast_from_main(self, make: Callable[[], _T]) -> _T:
        """What the first process makes, for everyone."""
        return self.all_gather(make() if self.is_main else None)[0]  # type: ignore[return-value]

    @contextmanager
    def main_process_first(self) -> Iterator[None]:
        """The first process goes first, where it leaves something for the others on the disk."""
        if self.world > 1 and not self.is_main:
            distributed.barrier()
        yield
        if self.world > 1 and self.is_main:
            distributed.barrier()

    def all_reduce_sum_(self, tensors: Sequence[Tensor]) -> None:
        """Put the sum over all processes into each tensor, in place and in one message."""
        self._as_one(tensors, distributed.all_reduce)

    def broadcast_(self, tensors: Sequence[Tensor]) -> None:
        """Put the first process's values into each tensor, in place."""
        for kind in sorted({t.dtype for t in tensors}, key=str):
            same = [t for t in tensors if t.dtype == kind]
            self._as_one(same, lambda flat: distributed.broadcast(flat, 0))

    def _as_one(self, tensors: Sequence[Tensor], send: Callable[[Tensor], object]) -> None:
        if self.world == 1 or not tensors:
            return
        flat = torch.cat([t.detach().reshape(-1) for t in tensors])
        send(flat)
        parts = torch.split(flat, [t.numel() for t in tensors])
        for own, part in zip(tensors, parts, strict=True):
            own.detach().copy_(part.view_as(own))

    @contextmanager
    def as_one(self) -> Iterator[None]:
        """One process's failure is everyone's, for the same reason.

        Whoever waits for a process that is gone finds its connection closed, or is ended by the
        launcher; what it raises instead is what went wrong over there.
        """
        try:
            yield
        except BaseException as error:
            lost = isinstance(error, distributed.DistError) or "/gloo/" in str(error)
            mine = RunError("another process of this run is gone") if lost else error
            own = f"{type(mine).__name__}\n{mine}"
            told = self.store.compare_set(FAILURE, "", own).decode() if self.store else own
            if told == own and not lost:
                raise
            kind, _, text = told.partition("\n")
            known = {each.__name__: each for each in (KeyboardInterrupt, UserError, RunError)}
            raise (known[kind](text) if kind in known else RunError(f"{kind}: {text}")) from None


ALONE = Shard()
"""One process, which has everything."""


@contextmanager
def join_processes(device: str) -> Iterator[Shard]:
    """This process's part, as the launcher's environment says; alone without one.

    Args:
        device: what ``--device`` says: it decides what processes talk through.
    """
    if env.world() == 1:
        yield ALONE
        return
    store, rank, world = next(rendezvous("env://", timeout=PATIENCE))
    shard = Shard(rank, world, store)
    # Twice: whoever fails must have said why before its connections are closed.
    with shard.as_one(), _grouped(shard, store, device), shard.as_one():
        yield shard


@contextmanager
def _grouped(shard: Shard, store: Store, device: str) -> Iterator[None]:
    """While open, all processes can talk."""
    gpu = torch.cuda.is_available() and device.startswith(("auto", "cuda"))
    if gpu:
        torch.cuda.set_device(local(device))
    distributed.init_process_group(
        "nccl" if gpu else "gloo",
        store=PrefixStore("group", store),
        rank=shard.rank,
        world_size=shard.world,
        timeout=PATIENCE,
    )
    try:
        yield
    finally:
        distributed.destroy_process_group()


def local(device: str) -> str:
    """The GPU of this process, where ``device`` says no more than that it is one."""
    seat = env.local_rank()
    automatic = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    return f"cuda:{seat}" if seat is not None and automatic else device
