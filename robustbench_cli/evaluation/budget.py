"""What an evaluation may spend: a time, or a number of passes, or whatever it takes.

With a number of passes an example is begun only if the most that it can cost is left, in the order
of the data.  So which examples are finished depends on the budget alone, not on batches, sessions
or the machine, and the budget is never exceeded.  With a time, examples are begun that will be done
in time by the rate so far; what is under attack when the time is over is given up after its pass,
and begins anew if the evaluation is taken up again.
"""

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from torch import Tensor

from robustbench_cli.core.errors import UserError
from robustbench_cli.runs.budget_spent import BudgetSpent, BudgetUnit


class Costly(Protocol):
    """Something whose cost is counted: the verdicts under an attack."""

    @property
    def spent(self) -> np.ndarray:
        """The passes that each example has cost so far (N)."""


class Allowance:
    """What is left to an evaluation: here, whatever it takes."""

    limited: ClassVar[bool] = False

    def __init__(self, limit: float = 0, earlier_seconds: float = 0) -> None:
        self._limit, self._earlier = limit, earlier_seconds
        self._counted: list[Costly] = []
        self._recalled = 0
        self._began: float | None = None
        self._ended: float | None = None

    def start(self) -> None:
        """Let the time run."""
        self._began = time.perf_counter()

    def stop(self) -> None:
        """Stop the time: what follows, as checks do, is not counted."""
        self._ended = time.perf_counter()

    def count(self, column: Costly) -> None:
        """Count from now on what these verdicts cost, and what they have cost in the past."""
        self._counted.append(column)
        self._recalled += int(column.spent.sum())

    @property
    def passes(self) -> int:
        """The passes that were spent, forward and backward, in all sessions."""
        return sum(int(column.spent.sum()) for column in self._counted)

    @property
    def seconds(self) -> float:
        """The time that was spent, in all sessions."""
        if self._began is None:
            return self._earlier
        now = time.perf_counter() if self._ended is None else self._ended
        return self._earlier + now - self._began

    @property
    def expired(self) -> bool:
        """True if what is under attack must be given up now."""
        return False

    @property
    def out(self) -> bool:
        """True if nothing further may be begun."""
        return False

    def blocks(self, rows: Tensor, most: int) -> Iterator[Tensor]:
        """Yield the examples that may be begun, some at a time; the caller finishes each block.

        Args:
            rows: positions (B, int64), in the order of the data.
            most: the passes that one of them costs at most.
        """
        yield rows


class PassAllowance(Allowance):
    """A number of passes: an example is begun only if the most that it can cost is left."""

    limited = True
    _refused = False

    @property
    def out(self) -> bool:
        return self._refused

    def blocks(self, rows: Tensor, most: int) -> Iterator[Tensor]:
        while len(rows) and not self._refused:
            many = int(self._limit - self.passes) // most
            if many < 1:
                self._refused = True
            else:
                yield rows[:many]
                rows = rows[many:]


class TimeAllowance(Allowance):
    """A time, in seconds: as many examples are begun as the rate so far gets done in it."""

    limited = True

    @property
    def expired(self) -> bool:
        return self.seconds >= self._limit

    @property
    def out(self) -> bool:
        return self.expired

    def blocks(self, rows: Tensor, most: int) -> Iterator[Tensor]:
        while len(rows) and not self.expired:
            many = max(1, int(self._passes_left / most)) if self._rate else len(rows)
            yield rows[:many]
            rows = rows[many:]

    @property
    def _rate(self) -> float:
        """The passes per second of this session; 0 while none is known."""
        took = self.seconds - self._earlier
        return (self.passes - self._recalled) / took if took > 0 else 0.0

    @property
    def _passes_left(self) -> float:
        return self._rate * (self._limit - self.seconds)


def allowance_of(budget: "Budget | None", left: BudgetSpent | None) -> Allowance:
    """Return what an evaluation may spend.

    Args:
        budget: None: whatever it takes.
        left: what earlier sessions of it have spent; None: there were none.
    """
    return Allowance() if budget is None else budget.allowance(left)


@dataclass(frozen=True)
class _Unit:
    """A unit in which budgets are written."""

    kind: BudgetUnit
    size: int
    timed: bool
    left: type[Allowance]


_UNITS: Mapping[str, _Unit] = {
    "s": _Unit("seconds", 1, True, TimeAllowance),
    "m": _Unit("seconds", 60, True, TimeAllowance),
    "h": _Unit("seconds", 3600, True, TimeAllowance),
    "passes": _Unit("passes", 1, False, PassAllowance),
}


@dataclass(frozen=True)
class Budget:
    """A budget as it was written: ``90s``, ``10m``, ``1.5h`` or ``50000passes``."""

    text: str

    def __post_init__(self) -> None:
        """Check the text.

        Raises:
            UserError: it is no number above 0 with one of the units.
        """
        unit = _UNITS.get(self._parts[1])
        fits = unit is not None and (unit.timed or "." not in self._parts[0])
        if not fits or not 0 < self.limit < float("inf"):
            raise UserError(
                f"--budget {self.text!r}: give a time such as 90s, 10m or 2h, or a whole number of "
                "passes such as 50000passes"
            )

    @property
    def _parts(self) -> tuple[str, str]:
        found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([a-z]+)", self.text)
        return (found[1], found[2]) if found else ("0", "")

    @property
    def _unit(self) -> _Unit:
        return _UNITS[self._parts[1]]

    @property
    def limit(self) -> float:
        """The budget in seconds or in passes."""
        return float(self._parts[0]) * self._unit.size

    def allowance(self, left: BudgetSpent | None) -> Allowance:
        """Return what is left of it to an evaluation.

        Args:
            left: what earlier sessions have spent; None: there were none.
        """
        return self._unit.left(self.limit, left.seconds if left else 0.0)

    def continues(self, left: BudgetSpent | None) -> bool:
        """Return whether an evaluation that spent so much may be gone on with.

        A number of passes gives the same result on every run, so it goes on only with what one at
        most as large has left; a time only with what was timed.

        Args:
            left: what was spent; None: it was begun without a budget.
        """
        return left is not None and left.unit == self._unit.kind and left.limit <= self.limit

    def in_passes(self, per_second: float) -> float:
        """Return the budget in passes, at so many of them per second."""
        return self.limit * per_second if self._unit.timed else self.limit

    def timed_passes(self, per_second: float) -> float:
        """Return the passes of a time, at so many of them per second; 0 of a number of passes.

        What such a number leads to must not depend on what is faster on a machine.
        """
        return self.in_passes(per_second) if self._unit.timed else 0.0

    def spent(self, allowance: Allowance, *, classified: int, ran_out: bool) -> BudgetSpent:
        """Return what the record says of it.

        Args:
            allowance: what is left of it.
            classified: the number of clean images that have been classified.
            ran_out: whether something is left to do.
        """
        return BudgetSpent(
            asked=self.text,
            unit=self._unit.kind,
            limit=self.limit,
            passes=allowance.passes,
            seconds=round(allowance.seconds, 3),
            ran_out=ran_out,
            classified=classified,
        )
