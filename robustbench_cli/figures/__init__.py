"""The figures of ``advbench plot``: each kind is a frozen dataclass of its parameters.

A figure first collects its numbers, from records or by measuring models, then draws them.  torch
and matplotlib are imported where they are used, so that figures of records start fast.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from robustbench_cli.commands.upgrade_records import comparable
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.registry import Registry
from robustbench_cli.core.threat_text import format_threat
from robustbench_cli.runs import folders, records
from robustbench_cli.runs.records import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Page

Painter = Callable[[], "Page"]
"""Draws collected numbers; it needs matplotlib and does no slow work."""


def _nothing(*_: object) -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class Feedback:
    """Messages for the user while a figure is prepared; by default there are none."""

    note: Callable[[str], None] = _nothing
    """Called with a message of one line."""
    progress: Callable[[str, int, int], None] = _nothing
    """Called with a label, the amount of work that is done, and the whole amount."""

    def left_out(self, error: UserError) -> None:
        """Say that a damaged record is not in the figure."""
        self.note(f"warning: {error}; left out")


@dataclass(frozen=True, kw_only=True)
class Material:
    """The inputs that one ``advbench plot`` command gives to a figure."""

    names: tuple[str, ...] = ()
    """The runs named on the command line: ids, parts of ids, or paths."""
    results: Path = Path("results")
    data_dir: Path = Path("data")
    device: str = "auto"
    numbers: Path
    """File in which measured numbers are kept."""
    feedback: Feedback = Feedback()

    def runs(self) -> dict[Path, Run]:
        """Return the named runs by folder.

        Raises:
            UserError: there is no such run.
        """
        found = [folders.find_run(name, self.results, "train") for name in self.names]
        return {folder: records.read(folder) for folder in found}

    def recorded(self) -> "Recorded":
        """Return all recorded runs, including named ones from other folders."""
        known = comparable(self.results, self.feedback.left_out)
        placed = {folder.resolve(): run for folder, run in known.items()}
        named = {folder: placed.get(folder.resolve(), run) for folder, run in self.runs().items()}
        ids = {run.id for run in known.values()}
        others = {folder: run for folder, run in named.items() if run.id not in ids}
        return Recorded({**known, **others}, [*named.values()])

    def trained(self) -> dict[Path, Run]:
        """Return the named training runs by folder; the latest finished one if none is named.

        Raises:
            UserError: there is no such run, or it is an evaluation.
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
    """The recorded runs that a figure can use."""

    placed: Mapping[Path, Run]
    """All of them, by folder; each has an id of its own."""
    named: list[Run]
    """The named ones, with the ids that they have among all."""

    @property
    def runs(self) -> list[Run]:
        return [*self.placed.values()]

    def selects(self, run: Run) -> bool:
        """Return whether an evaluation or its model was named; True if no run was named."""
        return not self.named or not {run.id, run.parent}.isdisjoint(each.id for each in self.named)


@dataclass(frozen=True, kw_only=True)
class Figure(ABC):
    """A kind of figure with its parameters."""

    of_training: ClassVar[bool] = False
    """True if it is about training runs only, and says nothing of models that come from
    elsewhere."""

    @abstractmethod
    def prepare(self, material: Material) -> Painter:
        """Collect the numbers and return the function that draws them.

        Raises:
            UserError: the runs do not hold the numbers that the figure shows.
        """


def legend_names(runs: Sequence[Run]) -> list[str]:
    """Return the legend's name of each run: its recipe, or its id where two recipes are equal."""
    subjects = [run.subject for run in runs]
    return [run.id if subjects.count(run.subject) > 1 else run.subject for run in runs]


def few(names: Sequence[str]) -> str:
    """Return names in one line; of many the first three, and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 4 else ""
    return ", ".join(names[:3] if more else names) + more


def setting_label(run: Run) -> str:
    """Return data set and threat of a run in words, as in ``mnist, Linf 0.3``.

    Raises:
        UserError: the record is damaged.
    """
    threat = run.settings.threat
    return f"{records.data_name(run)}, {format_threat(threat.norm, threat.eps, threat.mask)}"


FIGURES: Registry[Figure] = Registry("figure", __name__)
