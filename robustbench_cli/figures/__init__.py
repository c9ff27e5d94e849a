"""What ``advbench plot`` draws: a kind of figure is a frozen dataclass of its parameters.

A figure first collects its numbers, from records or by measuring models, then paints them.  torch
and matplotlib are imported where they are used: what only reads records starts fast.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from robustbench_cli.commands.upgrade_records import comparable
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.registry import Registry, limits
from robustbench_cli.runs import folders, records
from robustbench_cli.runs.records import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Page

Painter = Callable[[], "Page"]
"""Paints numbers that are there; needs matplotlib, and nothing that is slow."""


def _nothing(*_: object) -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class Told:
    """How to tell whoever waits for a figure.  The default says nothing."""

    note: Callable[[str], None] = _nothing
    """Something worth a line."""
    progress: Callable[[str, int, int], None] = _nothing
    """Under this label so much is done, of so much."""


@dataclass(frozen=True, kw_only=True)
class Material:
    """What one command has for a figure."""

    names: tuple[str, ...] = ()
    """The runs that were named: ids, parts of them, or paths."""
    results: Path = Path("results")
    data_dir: Path = Path("data")
    device: str = "auto"
    numbers: Path
    """Where numbers that had to be measured are kept."""
    told: Told = Told()

    def runs(self) -> dict[Path, Run]:
        """The named runs with their folders."""
        found = [folders.find_run(name, self.results, "train") for name in self.names]
        return {folder: records.read(folder) for folder in found}

    def recorded(self) -> "Recorded":
        """All records, with those of the named runs that are elsewhere."""
        known = comparable(self.results)
        placed = {folder.resolve(): run for folder, run in known.items()}
        named = [placed.get(folder.resolve(), run) for folder, run in self.runs().items()]
        ids = {run.id for run in known.values()}
        return Recorded([*known.values(), *(run for run in named if run.id not in ids)], named)

    def trained(self) -> dict[Path, Run]:
        """The named training runs with their folders; the latest finished one if none is.

        Raises:
            UserError: no such run, or it is an evaluation.
        """
        runs = self.runs()
        if not runs:
            folder = folders.find_run(None, self.results, "train")
            runs = {folder: records.read(folder)}
        for run in runs.values():
            if run.kind != "train":
                raise UserError(f"run {run.id!r} is of kind {run.kind!r}; name a training run")
        return runs


@dataclass(frozen=True)
class Recorded:
    """What a figure of records has to choose from."""

    runs: list[Run]
    named: list[Run]
    """Those that were named, under the ids they have among all."""

    def asked(self, run: Run) -> bool:
        """Whether an evaluation, or its model, was named; without names: any."""
        return not self.named or not {run.id, run.parent}.isdisjoint(each.id for each in self.named)


@dataclass(frozen=True, kw_only=True)
class Figure(ABC):
    """One kind of figure with its parameters."""

    @abstractmethod
    def prepared(self, material: Material) -> Painter:
        """Collect the numbers; what paints them is returned.

        Raises:
            UserError: the runs do not hold what the figure shows.
        """


def called(runs: Sequence[Run]) -> list[str]:
    """What each run is called in a legend: what was trained, or its id where two are alike."""
    subjects = [run.subject for run in runs]
    return [run.id if subjects.count(run.subject) > 1 else run.subject for run in runs]


def setting_label(run: Run) -> str:
    """Data set and threat: ``mnist, Linf 0.3``."""
    try:
        threat = run.config["threat"]
        limited = limits(threat["norm"], threat["eps"], threat.get("mask", ""))
        return f"{records.data_name(run)}, {limited}"
    except KeyError as error:
        raise UserError(f"run {run.id!r} is damaged: its record has no {error}") from None


FIGURES: Registry[Figure] = Registry("figure", __name__)
