"""Several processes that share one evaluation: ``torchrun --nproc-per-node N -m robustbench_cli``.

Every process attacks examples of its own and keeps its own journal; the first one writes the
record.  A verdict depends on its example alone, so how they are dealt out does not matter.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import numpy as np
import torch
from torch import distributed

T = TypeVar("T")

PATIENCE = timedelta(days=7)
"""How long a process may wait for the others: attacks take as long as they take."""


@dataclass(frozen=True)
class Shard:
    """Which of the processes this is."""

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes the record and speaks to the user."""
        return self.rank == 0

    def mine(self, n: int) -> np.ndarray:
        """Which of ``n`` examples are this process's (n)."""
        return np.asarray(np.arange(n) % self.world == self.rank)

    def gathered(self, value: T) -> list[T]:
        """Everyone's value, in order, for everyone."""
        if self.world == 1:
            return [value]
        values: list[T | None] = [None] * self.world
        distributed.all_gather_object(values, value)
        return values  # type: ignore[return-value]

    def together(self, arrays: dict[str, np.ndarray], n: int, seconds: float = 0.0) -> float:
        """Put everyone's examples together, ``n`` in all; the time is that of the slowest."""
        mine = self.mine(n).nonzero()[0]
        part = {key: values[mine] for key, values in arrays.items()}
        everyone = self.gathered((mine, part, seconds))
        for rows, theirs, _ in everyone:
            for key, values in theirs.items():
                arrays[key][rows] = values
        return max(spent for _, _, spent in everyone)

    def agreed(self, make: Callable[[], T]) -> T:
        """What the first process makes, for everyone."""
        return self.gathered(make() if self.first else None)[0]  # type: ignore[return-value]


@contextmanager
def joined(device: torch.device) -> Iterator[Shard]:
    """This process's part, as the launcher's environment says; alone without one."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Shard()
        return
    backend = {"cuda": "nccl"}.get(device.type, "gloo")
    distributed.init_process_group(backend, timeout=PATIENCE)
    try:
        yield Shard(distributed.get_rank(), world)
    finally:
        distributed.destroy_process_group()


def speaks() -> bool:
    """Whether this process is the one that prints the result."""
    return os.environ.get("RANK", "0") == "0"


def local(device: str) -> str:
    """The GPU of this process, where ``device`` says no more than that it is one."""
    rank = os.environ.get("LOCAL_RANK")
    automatic = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    return f"cuda:{rank}" if rank is not None and automatic else device
