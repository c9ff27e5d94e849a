"""When memory runs out: go on with half as many examples at a time."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from robustbench_cli.evaluation.active_batch import StageResult

PART = 32
"""Images that a check shows a model at once: fixed, so that no setting of a run can change what
it finds."""


def halving(
    work: Callable[[Tensor, int], Iterator[StageResult]],
    rows: Tensor,
    size: int,
    note: Callable[[str], None],
) -> Iterator[StageResult]:
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
        size = _halved(size)
        note(f"out of memory: going on with {size} examples at a time")
        gone = torch.cat(done).to(rows.device) if done else rows[:0]
        rows = rows[~torch.isin(rows, gone)]


def in_parts(work: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """What ``work`` makes of ``x``, part by part; of smaller parts where memory runs out.

    Args:
        work: takes some of the rows of ``x``; gives as many.
    """
    size = PART
    while True:
        try:
            return torch.cat([work(part) for part in torch.split(x, size)])
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not _is_memory(error) or size == 1:
                raise
        size = _halved(size)


def _halved(size: int) -> int:
    """Half as many, in memory that is free again: not while an error still holds it."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return max(1, size // 2)


_LACKS = ("out of memory", "not enough memory", "can't allocate memory", "STATUS_ALLOC_FAILED")
"""What torch, its CPU allocator, cuBLAS and cuDNN say."""


def _is_memory(error: BaseException) -> bool:
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or any(lack in str(error) for lack in _LACKS)
