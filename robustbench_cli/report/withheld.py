"""The entry of a table where a number means nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, nan
from typing import Any

from robustbench_cli.report.example_files import MissingVerdicts
from robustbench_cli.report.number_trust import WITHHELD, NumberTrust
from robustbench_cli.report.statistics import Cell, Measurement


@dataclass(frozen=True, kw_only=True)
class WithheldNumber(Measurement):
    """Stands where the number means nothing; it holds none, so none can be shown."""

    spaced: bool = True
    """False if the names of its data hold no spaces, as those of distances."""

    def check_presence(self) -> None:
        """Raise ``MissingVerdicts``: verdicts that mean nothing are not to be compared."""
        raise MissingVerdicts(f"{self.name!r} is withheld: it means nothing")

    @property
    def values(self) -> tuple[float, ...]:
        return ()

    @property
    def mean(self) -> float:
        return nan

    @property
    def rank(self) -> float:
        return inf

    @property
    def partial(self) -> bool:
        return False

    @property
    def competes(self) -> bool:
        return False

    @property
    def text(self) -> str:
        return self.trust.written("") if self.trust else WITHHELD

    @property
    def raw(self) -> Mapping[str, Any]:
        key = self.name if self.spaced else self.name.replace(" ", "_")
        return {key: None, f"{key}_std": None, **self._trusted(key)}


def cell_of_one(
    name: str, correct: float, n: int, trust: NumberTrust, *, intervals: bool
) -> Cell | WithheldNumber:
    """Return the accuracy of a single evaluation, or what stands for it where it means nothing.

    Args:
        correct: right answers among ``n`` examples.
        intervals: write it with its confidence interval.
    """
    if trust.withheld:
        return WithheldNumber(name=name, trust=trust)
    return Cell(name=name, correct=(correct,), n=n, intervals=intervals, trust=trust)
