"""Running out of memory: the work goes on with half as many examples at a time."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from robustbench_cli.evaluation.active_batch import StageResult

PART = 32
"""Images per batch in checks of a model: fixed, so that no setting of a run can change what they
find."""


def halving(
    work: Callable[[Tensor, int], Iterator[StageResult]],
    rows: Tensor,
    size: int,
    note: Callable[[str], None],
) -> Iterator[StageResult]:
    """Yield the results of ``work`` on ``rows``; after an error, of those that had none yet.

    Args:
        work: takes positions (B) and the number of examples to work on at a time.
        rows: positions in the data (B).
        size: that number at first.
        note: called with a message at every halving.
    """
    while len(rows):
        done: list[Tensor] = []
        try:
            for result in work(rows, size):
                done.append(result.rows)
                yield result
            return
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not _is_memory(error) or size == 1:
                raise
        size = _halved(size)
        note(f"out of memory: going on with {size} examples at a time")
        finished = torch.cat(done).to(rows.device) if done else rows[:0]
        rows = rows[~torch.isin(rows, finished)]


def in_parts(work: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return ``work(x)``, computed part by part, in smaller parts where memory runs out.

    Args:
        work: takes some rows of ``x`` and returns a tensor with as many rows.
        x: (B, ...).
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
    """Half the size, after freeing what the failed attempt left in the device's memory.

    It must be called outside of the ``except`` block: the error holds the tensors of its frames.
    """
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return max(1, size // 2)


_MESSAGES = ("out of memory", "not enough memory", "can't allocate memory", "STATUS_ALLOC_FAILED")
"""Parts of the messages of torch, its CPU allocator, cuBLAS and cuDNN."""


def _is_memory(error: BaseException) -> bool:
    """True if an error says that memory ran out; some libraries raise a plain RuntimeError."""
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or any(text in str(error) for text in _MESSAGES)
