"""What robustness costs: clean against robust accuracy (Zhang et al., 2019), table 4 as a curve.

https://arxiv.org/abs/1901.08573
"""

import math
import re
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from robustbench_cli import canvas
from robustbench_cli.canvas import COLOURS, HEIGHT, MARKERS, WIDTH
from robustbench_cli.catalogue import typed
from robustbench_cli.cells import Cell
from robustbench_cli.columns import CLEAN, LAST, WORST, usual
from robustbench_cli.errors import UserError, hint
from robustbench_cli.figures import FIGURES, Figure, Material, Painter
from robustbench_cli.plot import ACROSS
from robustbench_cli.records import Run, same_but_seed
from robustbench_cli.report import Row, finished, rows
from robustbench_cli.run.defaults import every

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Page


@dataclass(frozen=True, kw_only=True)
class Point:
    """One training configuration over its seeds."""

    clean: Cell
    robust: Cell
    label: str
    """``beta=6``; nothing for a point alone."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """Configurations that differ in one parameter, in its order; or a single one."""

    name: str
    points: tuple[Point, ...]


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Lines that can be compared."""

    title: str
    column: str
    """What the robust accuracy is under."""
    lines: tuple[Line, ...]


@FIGURES.register("tradeoff")
@dataclass(frozen=True, kw_only=True)
class TradeOff(Figure):
    """Clean against robust accuracy, from recorded evaluations; without named runs, from all.

    Recipes that differ in one number only, as trades:beta=1 and trades, are joined in its order.
    """

    attack: str = ""
    """A column of the report, e.g. pgd20; nothing: worst where all were attacked alike, else the
    strongest attack that all have in common."""

    def prepared(self, material: Material) -> Painter:
        found = _rows(material)
        known = dict.fromkeys(column for row in found for column in _robust(row))
        if self.attack and self.attack not in known:
            raise UserError(f"unknown column {self.attack!r}{hint(self.attack, known)}")
        settings: dict[Hashable, list[Row]] = defaultdict(list)
        for row in found:
            settings[row.setting].append(row)
        panels, notes = [], []
        for comparable in settings.values():
            column = self.attack or _strongest(comparable)
            having = [row for row in comparable if column in _robust(row)]
            notes += _notes(comparable, having, column)
            if having:
                panels.append(Panel(title=_title(having), column=column, lines=lines(having, column)))
        if not panels:
            raise UserError(notes[0])
        for note in notes:
            material.told.note(note)
        return partial(painted, panels)


def _rows(material: Material) -> list[Row]:
    """The report's rows of the named runs, or all; ``UserError`` where there are none."""
    recorded, named = every(material.results), list(material.runs().values())
    known = {run.id for run in recorded}
    recorded += [run for run in named if run.id not in known]
    chosen = {run.id for run in named}

    def wanted(run: Run) -> bool:
        return usual(run) and (not chosen or bool({run.id, run.parent} & chosen))

    shown = {id_ for run in finished(recorded) if wanted(run) for id_ in (run.id, run.parent)}
    lacking = [
        f"no finished evaluation of {run.id}; make one: "
        f"advbench eval --run {run.parent or run.id} --attack pgd20"
        for run in named
        if run.id not in shown
    ]
    found = [row for row in rows(recorded, keep=wanted) if row.cells[CLEAN]]
    if not found:
        nothing = f"no finished evaluation in {str(material.results)!r}; evaluate a run first: "
        raise UserError("; ".join(lacking) or f"{nothing}advbench eval --attack pgd20")
    for note in lacking:
        material.told.note(note)
    return found


def _robust(row: Row) -> dict[str, Cell]:
    """What was measured against the kept weights, by column; worst comes last."""
    return {
        name: cell
        for name, cell in row.cells.items()
        if isinstance(cell, Cell) and name != CLEAN and not name.endswith(LAST)
    }


def _alike(found: Sequence[Row]) -> bool:
    """Whether all rows met the same attacks with every seed: only then does worst compare."""
    first = [*_robust(found[0])]
    return all([*_robust(row)] == first for row in found) and not any(
        cell.partial for row in found for cell in _robust(row).values()
    )


def _strongest(found: Sequence[Row]) -> str:
    """worst if rows were attacked alike, else the strongest of all; nothing if there is none."""
    measured = [_robust(row) for row in found]
    common = [name for name in measured[0] if all(name in cells for cells in measured)]
    if WORST in common and _alike(found):
        return WORST
    attacks = [name for name in common if name != WORST]
    return min(attacks, key=lambda name: sum(cells[name].mean for cells in measured), default="")
