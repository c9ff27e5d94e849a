"""The tables of ``advbench report``: rows, columns, the best numbers, and what they mean."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any

from robustbench_cli.cli.formats import Grid, Page, TableEntry
from robustbench_cli.core.errors import UserError, hint
from robustbench_cli.core.safe_text import one_line

if TYPE_CHECKING:
    from robustbench_cli.report.joint_table import JointTable
    from robustbench_cli.report.robustness_table import TableRow
    from robustbench_cli.report.statistics import Cell
    from robustbench_cli.report.transfer_matrix import Matrix

_MEANING = "accuracy in %, robust accuracy = right before and after the attack"
_POOLED = "; [95 % Wilson interval, seeds pooled]"


@dataclass(frozen=True)
class TableSheet:
    """The names of the columns and the rows of the main table, in order."""

    columns: list[str]
    rows: list["TableRow"]

    def page(self) -> Page:
        """The table, ready to be written."""
        top, facts = self._best(), frozenset(self.rows[0].facts)
        grid = Grid(
            columns=self.columns,
            rows=[
                [TableEntry(self._text(row, c), best=(place, c) in top) for c in self.columns]
                for place, row in enumerate(self.rows)
            ],
            facts=facts,
            left=facts - {"n", "seeds"},
            shared={
                c: self.rows[0].facts[c].text for c in self.columns[1:] if shared(self.rows, c)
            },
        )
        raws = [_raw(row, self.columns) for row in self.rows]
        # In the order of the columns, also where the first row lacks one.
        names = dict.fromkeys(k for c in self.columns for row in self.rows for k in _raw(row, [c]))
        lines = [{name: raw.get(name) for name in names} for raw in raws]
        objects = [self._object(row) for row in self.rows]
        return Page(grids=[grid], notes=self._notes(), lines=lines, objects=objects)

    def _text(self, row: "TableRow", column: str) -> str:
        found = row.get(column)
        text = one_line(found.text) if found else ""
        return f"{text} †" if row.oracle and column == self.columns[0] else text

    def _best(self) -> set[tuple[int, str]]:
        """The highest numbers, as they are written, among at least two comparable rows."""
        found: dict[tuple[object, str], dict[int, float]] = defaultdict(dict)
        for place, row in enumerate(self.rows):
            for name, cell in row.cells.items():
                if cell:
                    found[row.setting, name][place] = cell.shown
        return {
            (place, name)
            for (_, name), numbers in found.items()
            for place, number in numbers.items()
            if len(numbers) > 1 and number == max(numbers.values())
        }

    def _object(self, row: "TableRow") -> dict[str, Any]:
        from robustbench_cli.report.statistics import Cell, Distance

        shown = {c: cell for c in self.columns if (cell := row.cells.get(c))}
        right = {c: cell.correct for c, cell in shown.items() if isinstance(cell, Cell)}
        far = {
            c: [x if isfinite(x) else None for x in cell.distances]
            for c, cell in shown.items()
            if isinstance(cell, Distance)
        }
        return {
            **_raw(row, [*row.facts, *self.columns]),
            "seeds": list(row.seeds),
            "correct": right,
            **({"distances": far} if far else {}),
            "oracle": row.oracle,
            "runs": list(row.runs),
        }

    def _notes(self) -> list[str]:
        """Return the meaning of the numbers, a line each."""
        from robustbench_cli.report.columns import DIFF, LAST
        from robustbench_cli.report.statistics import Cell, Distance

        shown = [cell for row in self.rows for c in self.columns if (cell := row.cells.get(c))]
        late = any(column.endswith((LAST, DIFF)) for column in self.columns)
        far = [cell for cell in shown if isinstance(cell, Distance)]
        spread = "; mean ± std over seeds" if any(cell.std is not None for cell in shown) else ""
        pooled = any(isinstance(cell, Cell) and cell.intervals for cell in shown)
        again = sum(row.retrained for row in self.rows)
        notes = {
            _MEANING + (_POOLED if pooled else spread): True,
            "worst = right under every attack of an evaluation": "worst" in self.columns,
            "last = the weights after the last epoch; diff = last minus those that were kept": late,
            "certified@r = right, and proven to stay so within r": any(
                c.startswith("certified") for c in self.columns
            ),
            "dist = median distance to the nearest adversarial image that was found": bool(far),
            "∞ = none was found for half of the images": any("∞" in cell.text for cell in far),
            "(1/2) = measured for 1 of 2 seeds": any(cell.partial for cell in shown),
            "† weights chosen by test accuracy: an oracle": any(r.oracle for r in self.rows),
            f"left out: {again} training run(s) that a later one repeats, seed included": again > 0,
        }
        return [note for note, applies in notes.items() if applies]


def results_sheet(found: list["TableRow"], *, columns: str | None, sort: str | None) -> TableSheet:
    """The main table as asked for; raise ``UserError`` for an unknown column."""
    from robustbench_cli.report.columns import WORST

    facts = list(found[0].facts)
    measured = [c for c in found[0].cells if any(row.cells[c] for row in found)]

    def known(name: str) -> str:
        if name not in (*facts, *measured):
            raise UserError(f"unknown column {name!r}{hint(name, (*facts, *measured))}")
        return name

    chosen = list(map(known, listed(columns))) or [c for c in measured if c != WORST]
    if not set(chosen) & set(facts):
        chosen = [c for c in facts if c != "model" or not shared(found, c)] + chosen
    if sort is not None:
        by = known(sort.removeprefix("-"))
        ranked = [(row, value.rank) for row in found if (value := row.get(by))]
        ranked.sort(key=lambda pair: pair[1], reverse=sort.startswith("-"))
        found = [row for row, _ in ranked] + [row for row in found if not row.get(by)]
    return TableSheet(chosen, found)


def listed(names: str | None) -> list[str]:
    """Return the names in ``--columns``, each once."""
    # ``pgd:steps=5,restarts=2`` is one name: its comma stands before a key.
    parts = re.split(r",(?![a-z_][a-z0-9_]*=)", names or "")
    return list(dict.fromkeys(name.strip() for name in parts if name.strip()))


def shared(found: Sequence["TableRow"], column: str) -> bool:
    """Return True if all rows have the same value in this column."""
    return len({row.facts[column].text for row in found if column in row.facts}) == 1


def transfers(found: Sequence["Matrix"]) -> Page:
    """A table of sources and targets for each attack."""
    objects = [line for matrix in found for line in _pairs(matrix)]
    cells = [cell for matrix in found for cell in matrix.cells.values()]
    own = any(line["white_box"] for line in objects)
    notes = [
        _MEANING + (_POOLED if any(cell.intervals for cell in cells) else ""),
        "rows: the model that images were crafted on; columns: the one they were tried on",
        *(["with *: white box, a model's own images"] if own else []),
    ]
    return Page(grids=list(map(_grid, found)), notes=notes, lines=objects, objects=objects)


_CORNER, _UNCHANGED = "crafted on", "nothing (clean)"


def _grid(matrix: "Matrix") -> Grid:
    def entry(cell: "Cell | None", own: bool = False) -> TableEntry:
        return TableEntry((cell.text + " *" * own) if cell else "")

    named = [one_line(name) for name in matrix.names.values()]
    names = dict(zip(matrix.names, named, strict=True))
    clean = [TableEntry(_UNCHANGED), *(entry(matrix.clean[target]) for target in matrix.targets)]
    crafted = [
        [
            TableEntry(names[source]),
            *(entry(matrix.cells.get((source, t)), source == t) for t in matrix.targets),
        ]
        for source in matrix.sources
    ]
    return Grid(
        title=one_line(matrix.title),
        columns=[_CORNER, *(names[target] for target in matrix.targets)],
        rows=[clean, *crafted],
        facts=frozenset({_CORNER}),
        left=frozenset({_CORNER}),
    )


def _pairs(matrix: "Matrix") -> list[dict[str, Any]]:
    """One line for each number: who broke whom."""
    keys = ("dataset", "norm", "eps", "mask", "n")
    about = {key: matrix.about[key] for key in keys if key in matrix.about}
    return [
        {
            "attack": matrix.attack,
            **about,
            "source": matrix.names[source],
            "target": matrix.names[target],
            "white_box": source == target,
            "clean": matrix.clean[target].mean,
            "robust_accuracy": cell.mean,
            **({"low": cell.interval[0], "high": cell.interval[1]} if cell.intervals else {}),
            "source_weights": source,
            "target_weights": target,
            "run": matrix.runs[source, target],
        }
        for source in matrix.sources
        for target in matrix.targets
        if (cell := matrix.cells.get((source, target)))
    ]


def joints(found: Sequence["JointTable"]) -> Page:
    """A table of attacks and domains for each set of domains."""
    objects = [
        {
            "runs": list(table.about["runs"]),
            **{key: table.about[key] for key in ("images", "dataset", "norm", "eps", "n")},
            "attack": line.attack,
            "seeds": len(line.runs),
            **{key: value for cell in line.cells.values() for key, value in cell.raw.items()},
            "joint": list(line.runs),
        }
        for table in found
        for line in table.lines
    ]
    grids = [_domains(table) for table in found]
    cells = [cell for table in found for line in table.lines for cell in line.cells.values()]
    spread = "; mean ± std over seeds" if any(cell.std is not None for cell in cells) else ""
    pooled = _POOLED if any(cell.intervals for cell in cells) else spread
    notes = [
        "wrong in all = fooled in every domain by one perturbation, in %: the higher, the stronger "
        "the attack",
        f"the other columns: accuracy in each domain at that perturbation, in %{pooled}",
    ]
    joined = {"runs", "joint"}  # lists, which a line of CSV cannot hold
    lines = [
        {key: ", ".join(value) if key in joined else value for key, value in each.items()}
        for each in objects
    ]
    return Page(grids=grids, notes=notes, lines=lines, objects=objects)


def _domains(table: "JointTable") -> Grid:
    seeds = any(len(line.runs) > 1 for line in table.lines)
    columns = ["attack", *["seeds"] * seeds, *table.lines[0].cells]
    rows = [
        [
            TableEntry(one_line(line.attack)),
            *[TableEntry(str(len(line.runs)))] * seeds,
            *(TableEntry(cell.text) for cell in line.cells.values()),
        ]
        for line in table.lines
    ]
    return Grid(
        title=one_line(table.title),
        columns=list(map(one_line, columns)),
        rows=rows,
        facts=frozenset({"attack", "seeds"}),
        left=frozenset({"attack"}),
    )


def _raw(row: "TableRow", columns: Sequence[str]) -> dict[str, Any]:
    return {k: x for c in columns if (value := row.get(c)) for k, x in value.raw.items()}
