"""When memory runs out: go on with half as many examples at a time."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from robustbench_cli.engine.table import Found


def halving(
    work: Callable[[Tensor, int], Iterator[Found]],
    rows: Tensor,
    size: int,
    note: Callable[[str], None],
) -> Iterator[Found]:
    """Whatever ``work`` finds for ``rows``; those that had no verdict in time begin again.

    Args:
        work: takes examples, and how many of them to work on at a time.
        size: how many at first.
        note: is told of every halving.
    """
    while len(rows):
        done: list[Tensor] = []
        try:
            for found in work(rows, size):
                done.append(found.rows)
                yield found
            return
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not _is_memory(error) or size == 1:
                raise
        size = max(1, size // 2)
        note(f"out of memory: going on with {size} examples at a time")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        gone = torch.cat(done).to(rows.device) if done else rows[:0]
        rows = rows[~torch.isin(rows, gone)]


def _is_memory(error: BaseException) -> bool:
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or "can't allocate memory" in str(error) or "out of memory" in str(error)
