"""The trade-off of clean against robust accuracy (Zhang et al., 2019), table 4 as a curve.

https://arxiv.org/abs/1901.08573
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from robustbench_cli.config.catalogue import typed
from robustbench_cli.core.errors import UserError, hint
from robustbench_cli.figures import FIGURES, Figure, Material, Painter
from robustbench_cli.figures._scatter import TradeoffCurve, TradeoffPanel, paint_tradeoff
from robustbench_cli.report.columns import CLEAN, LAST, WORST, is_plain
from robustbench_cli.report.robustness_table import TableRow, finished, rows
from robustbench_cli.report.statistics import Cell
from robustbench_cli.report.withheld import WithheldNumber
from robustbench_cli.runs.records import Run, same_but_seed


@FIGURES.register("tradeoff")
@dataclass(frozen=True, kw_only=True)
class TradeOff(Figure):
    """Clean against robust accuracy, from recorded evaluations; without named runs, from all.

    x axis: clean accuracy, y axis: robust accuracy, in percent; error bars are standard deviations
    over seeds.  Recipes that differ in one number only, as trades:beta=1 and trades, are joined in
    its order.
    """

    attack: str = ""
    """Column of the report, e.g. pgd20; empty: worst where all rows met the same attacks, else the
    strongest attack that all of them met."""

    def prepare(self, material: Material) -> Painter:
        found = _rows(material)
        known = {name for row in found for name in _measured(row)} - {CLEAN}
        if self.attack and self.attack not in known:
            raise UserError(f"unknown column {self.attack!r}{hint(self.attack, known)}")
        settings: dict[object, list[TableRow]] = defaultdict(list)
        for row in found:
            settings[row.setting].append(row)
        panels, notes = [], []
        for comparable in settings.values():
            column = self.attack or _strongest(comparable)
            shown = [row for row in comparable if {CLEAN, column} <= _measured(row).keys()]
            title = "{dataset}, {eps}, n {n}".format_map(_texts(comparable[0]))
            notes += [f"{title}: {note}" for note in _notes(comparable, shown, column)]
            if shown:
                panels.append(
                    TradeoffPanel(
                        title=title,
                        column=column,
                        curves=curves(shown, column),
                        withheld=len(_withheld(comparable, column)),
                    )
                )
        if not panels:
            raise UserError(notes[0])
        for note in notes:
            material.feedback.note(note)
        return partial(paint_tradeoff, panels)


def _rows(material: Material) -> list[TableRow]:
    """Return the report's rows of the named runs, or of all.

    Raises:
        UserError: there are none.
    """
    recorded = material.recorded()

    def wanted(run: Run) -> bool:
        return is_plain(run) and recorded.selects(run)

    used = {id_ for run in finished(recorded.runs) if wanted(run) for id_ in (run.id, run.parent)}
    lacking = [
        f"no finished evaluation of {run.id}; make one: "
        f"advbench eval --run {run.parent or run.id} --attack pgd20"
        for run in recorded.named
        if run.id not in used
    ]
    found = [row for row in rows(recorded.runs, keep=wanted) if row.cells.get(CLEAN)]
    if not found:
        nothing = f"no finished evaluation in {str(material.results)!r}; make one: "
        raise UserError(lacking[0] if lacking else f"{nothing}advbench eval --attack pgd20")
    for note in lacking:
        material.feedback.note(note)
    return found


def _texts(row: TableRow) -> dict[str, str]:
    """Return the descriptive columns of a row, by name."""
    return {name: fact.text for name, fact in row.facts.items()}


def _measured(row: TableRow) -> dict[str, Cell]:
    """Return the accuracies, by column, of the weights that training kept."""
    cells = row.cells.items()
    return {key: c for key, c in cells if isinstance(c, Cell) and not key.endswith(LAST)}


def _withheld(found: Sequence[TableRow], column: str) -> list[TableRow]:
    """Return the rows whose number in a column, or whose clean accuracy, means nothing."""
    return [
        row
        for row in found
        if any(isinstance(row.cells.get(name), WithheldNumber) for name in (CLEAN, column))
    ]


def _strongest(found: Sequence[TableRow]) -> str:
    """Return the column to draw: ``worst`` where it is comparable, else the lowest that all rows
    have.

    Empty where there is none.
    """
    measured = [
        cells
        for row in found
        if not isinstance(row.cells.get(CLEAN), WithheldNumber) and (cells := _measured(row))
    ]
    if not measured:
        return ""
    whole = [{name for name, c in cells.items() if not c.partial} for cells in measured]
    common = set.intersection(*whole)
    # ``worst`` compares only rows that met the same attacks.
    if WORST in common and all(cells.keys() == common for cells in measured):
        return WORST
    attacks = sorted(common - {CLEAN, WORST})
    return min(attacks, key=lambda name: sum(cells[name].mean for cells in measured), default="")


def _notes(found: Sequence[TableRow], shown: Sequence[TableRow], column: str) -> list[str]:
    """Return messages on the rows that a panel leaves out, or shows without all their seeds."""
    if not column:
        choice = sorted({name for row in found for name in _measured(row)} - {CLEAN, WORST})
        return [f"no attack was tried on all rows; choose one by attack=NAME: {', '.join(choice)}"]
    void = _withheld(found, column)
    lost = [_texts(row)["defense"] for row in found if row not in shown and row not in void]
    some = [_texts(row)["defense"] for row in shown if _measured(row)[column].partial]
    return [
        f"{what}: {', '.join(of)}"
        for what, of in (
            (f"left out, without {column}", lost),
            (f"{column} not of all seeds", some),
            (f"left out, {column} or clean withheld", [_texts(row)["defense"] for row in void]),
        )
        if of
    ]


def curves(found: Sequence[TableRow], column: str) -> tuple[TradeoffCurve, ...]:
    """Return comparable rows as curves, the longest first.

    Rows that differ in one number of the recipe make one curve; each other row makes one of its
    own.
    """
    several = len({_texts(row)["model"] for row in found}) > 1
    names = {row.runs: _name(row, several) for row in found}
    alone, groups = list(found), []
    for key, family in sorted(_families(found), key=lambda pair: -len(pair[1])):
        members = {value: family[value] for value in sorted(family) if family[value] in alone}
        if len(members) > 1:
            name = max((_without(names[row.runs], key) for row in members.values()), key=len)
            labels = tuple(f"{key}={typed(value)}" for value in members)
            groups.append((name, labels, [*members.values()]))
            alone = [row for row in alone if row not in members.values()]
    groups += [(names[row.runs], (), [row]) for row in alone]
    taken = [name for name, *_ in groups]
    return tuple(
        TradeoffCurve(
            name=name if taken.count(name) == 1 else names[members[0].runs],
            labels=labels,
            clean=tuple(_measured(row)[CLEAN] for row in members),
            robust=tuple(_measured(row)[column] for row in members),
        )
        for name, labels, members in groups
    )


def _families(found: Sequence[TableRow]) -> list[tuple[str, dict[float, TableRow]]]:
    """Return, for each number of a recipe, the rows that are equal in all else, by its value."""
    families: dict[tuple[str, ...], dict[float, TableRow]] = defaultdict(dict)
    for row in found:
        defense = row.config.get("defense", {})
        for part, key, value in ((p, key, v) for p in defense for key, v in defense[p].items()):
            if isinstance(value, int | float) and not isinstance(value, bool):
                rest = {**defense, part: {**defense[part], key: None}}
                recipe = same_but_seed({**row.config, "defense": rest})
                families[key, part, recipe].setdefault(value, row)
    return [(key, family) for (key, *_), family in families.items()]


def _name(row: TableRow, several: bool) -> str:
    """Return the legend's name of a row; with the model's where there are several models."""
    defense, model = _texts(row)["defense"], _texts(row)["model"]
    return f"{defense} {model}" if several and model not in defense else defense


def _without(name: str, key: str) -> str:
    """Remove one parameter of a recipe: ``trades:steps=5`` of ``trades:beta=1,steps=5``."""
    one = rf"{key}=[^,+ ]*"
    return re.sub(rf",{one}|:{one}(?=[+ ]|$)|(?<=:){one},", "", name)
