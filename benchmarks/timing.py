"""Entrants that take turns on one case, each timed on its own."""

import copy
import gc
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from case import Case, Verdict, judged
from torch import Tensor

from robustbench_cli.core.errors import UserError

WARM = 8
"""Images of the warm-up: imports, allocations and kernel choices are nobody's attack."""


@dataclass(frozen=True, kw_only=True)
class Entrant:
    """A library in a contest."""

    library: str
    version: str
    run: Callable[[Case], Tensor]
    warm: Callable[[Case], Tensor]


@dataclass(kw_only=True)
class Row:
    """The results of one library."""

    library: str
    version: str
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    """Of the whole process: more than ``seconds`` with threads, less where others took the CPU."""
    verdict: Verdict | None = None
    failed: str | None = None

    @property
    def median(self) -> float:
        """Seconds, as the table shows them."""
        return statistics.median(self.seconds) if self.seconds else math.nan


def contend(entrants: Sequence[Entrant], case: Case, repeat: int) -> list[Row]:
    """Warm everybody up, then let them run in turn, beginning with another one each time."""
    ready: list[tuple[Entrant, Row]] = []
    rows: list[Row] = []
    for entrant in entrants:
        row = Row(library=entrant.library, version=entrant.version)
        row.failed = attempt(entrant.warm, case.first(WARM), None)
        rows.append(row)
        if row.failed is None:
            ready.append((entrant, row))
        else:
            print(f"  {entrant.library}: skipped: {row.failed}", flush=True)
    for turn in range(repeat):
        shift = turn % len(ready) if ready else 0
        for entrant, row in ready[shift:] + ready[:shift]:
            if row.failed is None:
                row.failed = attempt(entrant.run, case, row)
            said = row.failed or f"{row.seconds[-1]:.2f} s"
            print(f"  {entrant.library}, run {turn + 1} of {repeat}: {said}", flush=True)
    return rows


def attempt(run: Callable[[Case], Tensor], case: Case, row: Row | None) -> str | None:
    """Run an attack on a fresh copy of the model, and note in ``row`` what it took and found.

    Returns:
        Why it could not be run, if it could not: one library's failure must not end the others'.
    """
    # Libraries leave gradients and hooks behind; the next one gets the model as it was loaded.
    lent = replace(case, model=copy.deepcopy(case.model))
    torch.manual_seed(case.seed)
    np.random.seed(case.seed)  # ART draws from it
    gc.collect()
    try:
        crafted, seconds, cpu = timed(lambda: run(lent), case.x.device)
    except ImportError as error:
        return f"not installed ({error})"
    except UserError as error:
        return str(error)
    except Exception as error:
        return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    if row is not None:
        row.seconds.append(seconds)
        row.cpu_seconds.append(cpu)
        row.verdict = judged(case, crafted)
    return None


def timed(run: Callable[[], Tensor], device: torch.device) -> tuple[Tensor, float, float]:
    """Return the images, and the seconds on the wall and on the CPU."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    wall, cpu = time.perf_counter(), time.process_time()
    crafted = run()
    wait()
    return crafted, time.perf_counter() - wall, time.process_time() - cpu
