"""What a defense cost to train: minutes of CPU time, a column that is shown if it is asked for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from robustbench_cli.report.columns import MINUTES
from robustbench_cli.report.statistics import Measurement
from robustbench_cli.runs.records import Run


@dataclass(frozen=True, kw_only=True)
class TrainingMinutes(Measurement):
    """Minutes of CPU time that a training took, its measurements included; the fewer the better."""

    minutes: tuple[float, ...]
    """Per seed."""

    @property
    def values(self) -> tuple[float, ...]:
        return self.minutes

    @property
    def rank(self) -> float:
        """The cheapest comes first."""
        return self.mean

    @property
    def competes(self) -> bool:
        """No best is marked: machines differ."""
        return False

    @property
    def text(self) -> str:
        digits = 1 if self.mean >= 1 else 2
        spread = "" if self.std is None else f" ± {self.std:.{digits}f}"
        return f"{self.mean:.{digits}f}{spread}{self._some}"

    @property
    def raw(self) -> Mapping[str, Any]:
        return {self.name: self.mean, f"{self.name}_std": self.std}


def training_minutes(runs: list[Run], seeds: int) -> TrainingMinutes | None:
    """Return what trainings cost, one run for each seed; None where no record says it.

    Args:
        seeds: the number of seeds of the row.
    """
    known = [minutes for run in runs if (minutes := _minutes(run)) is not None]
    if not known:
        return None
    return TrainingMinutes(name=MINUTES, seeds=seeds, minutes=tuple(known))


def _minutes(run: Run) -> float | None:
    spent = [row.get("cpu_seconds") for row in run.history]
    if not spent or None in spent:
        return None
    return sum(each for each in spent if each is not None) / 60
