"""The main table of ``advbench report``: rows, columns, the best numbers, and what they mean."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any

from robustbench_cli.cli.formats import Grid, Page, TableEntry
from robustbench_cli.core.errors import UserError, hint
from robustbench_cli.core.safe_text import one_line

if TYPE_CHECKING:
    from robustbench_cli.report.robustness_table import TableRow
    from robustbench_cli.report.standings import Standings
    from robustbench_cli.report.statistics import Fact, Measurement
    from robustbench_cli.report.trust_legend import JudgedNumber
    from robustbench_cli.runs.trust import Finding

MEANING_OF_ACCURACY = "accuracy in %, robust accuracy = right before and after the attack"
REJECTION_MEANING = (
    "with a reject class or a detector: clean = right and not rejected; under attack what was "
    "right when clean stands if it is right or rejected"
)
_NAMED = 3
"""So many columns are named where a note is about more."""


@dataclass(frozen=True)
class TableSheet:
    """The names of the columns and the rows of the main table, in order."""

    columns: list[str]
    rows: list["TableRow"]

    def page(self) -> Page:
        """The table, ready to be written."""
        from robustbench_cli.report.standings import standings
        from robustbench_cli.report.trust_legend import trust_legend

        best, facts = standings(self.rows, self.columns), frozenset(self.rows[0].facts)
        grid = Grid(
            columns=self.columns,
            rows=[
                [self._entry(place, column, best) for column in self.columns]
                for place in range(len(self.rows))
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
        objects = [self._object(place, best) for place in range(len(self.rows))]
        return Page(
            grids=[grid],
            notes=self._notes(best),
            lines=lines,
            objects=objects,
            legend=[
                *_meaning_of_marks(best),
                *trust_legend(self._judged(), unseen=sum(row.before_checks for row in self.rows)),
            ],
        )

    def _judged(self) -> list["JudgedNumber"]:
        """Return the numbers that are shown and of whose trust something is known."""
        from robustbench_cli.report.trust_legend import JudgedNumber

        names = row_names(self.rows)
        return [
            JudgedNumber(row=name, column=column, trust=cell.trust)
            for name, row in zip(names, self.rows, strict=True)
            for column in self.columns
            if (cell := row.cells.get(column)) and cell.trust
        ]

    def _entry(self, place: int, column: str, best: "Standings") -> TableEntry:
        row = self.rows[place]
        found = row.get(column)
        text = one_line(found.text) if found else ""
        text = f"{text} †" if row.oracle and column == self.columns[0] else text
        tied = f"= {text}" if (place, column) in best.tied else text
        return TableEntry(tied, best=(place, column) in best.alone)

    def _object(self, place: int, best: "Standings") -> dict[str, Any]:
        from robustbench_cli.report.statistics import Cell, Distance

        row = self.rows[place]
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
            "best": [c for c in self.columns if (place, c) in best.alone],
            "tied": [c for c in self.columns if (place, c) in best.tied],
            "findings": findings_as_data(shown),
            "oracle": row.oracle,
            "runs": list(row.runs),
        }

    def _notes(self, best: "Standings") -> list[str]:
        """Return the meaning of the numbers, a line each."""
        from robustbench_cli.report.columns import DIFF, LAST
        from robustbench_cli.report.statistics import Distance
        from robustbench_cli.report.target_share import TargetShare

        shown = [cell for row in self.rows for c in self.columns if (cell := row.cells.get(c))]
        late = any(column.endswith((LAST, DIFF)) for column in self.columns)
        far = [cell for cell in shown if isinstance(cell, Distance)]
        again = sum(row.retrained for row in self.rows)
        notes = {
            MEANING_OF_ACCURACY + spread_note(shown): True,
            REJECTION_MEANING: any("rejects" in row.facts["eps"].raw for row in self.rows),
            missing_intervals(shown): True,
            _untested(best): True,
            "no best is marked among distances: no test compares them": best.distances,
            "worst = right under every attack of an evaluation": "worst" in self.columns,
            "minutes = CPU time of the training, without that of runs which it builds on": "minutes"
            in self.columns,
            "last = the weights after the last epoch; diff = last minus those that were kept": late,
            "reached = images made into their target class, of those that are right and of another "
            "class as they are; it is no robust accuracy": any(
                isinstance(cell, TargetShare) for cell in shown
            ),
            "certified@r = right, and proven to stay so within r": any(
                c.startswith("certified") for c in self.columns
            ),
            "dist = median distance to the nearest adversarial image that was found": bool(far),
            "∞ = none was found for half of the images": any("∞" in cell.text for cell in far),
            "(1/2) = measured for 1 of 2 seeds": any(cell.partial for cell in shown),
            "† weights chosen by test accuracy: an oracle": any(r.oracle for r in self.rows),
            f"left out: {again} training run(s) that a later one repeats, seed included": again > 0,
        }
        return [note for note, applies in notes.items() if note and applies]


def spread_note(cells: Sequence["Measurement"]) -> str:
    """Return the meaning of what stands behind the means; empty where nothing does."""
    from robustbench_cli.report.statistics import Cell

    ends = [cell for cell in cells if isinstance(cell, Cell) and cell.intervals and cell.interval]
    shown_ends = set(map(id, ends))
    deviations = any(cell.std is not None and id(cell) not in shown_ends for cell in cells)
    several = any(len(cell.values) > 1 for cell in ends)
    one = any(len(cell.values) == 1 and cell.over_looks is None for cell in ends)
    parts = ["Wilson"] * one + ["images and seeds resampled"] * several
    if len(parts) > 1:
        parts = [f"{parts[0]} for one seed, {parts[1]} for several"]
    looks = any(cell.over_looks is not None for cell in ends)
    parts = [", ".join([*parts, *(["over all looks (--widen)"] if looks else [])])] * bool(ends)
    return (f"; [95 % interval: {parts[0]}]" if parts else "") + (
        "; mean ± std over seeds" if deviations else ""
    )


def missing_intervals(cells: Sequence["Measurement"]) -> str:
    """Return a note on the numbers that lack an interval, with a reason; empty where none does."""
    from robustbench_cli.report.statistics import Cell

    reasons = [why for cell in cells if isinstance(cell, Cell) and (why := cell.no_interval)]
    return f"no interval for {len(reasons)} number(s): {reasons[0]}" if reasons else ""


def _meaning_of_marks(best: "Standings") -> list[str]:
    """Return what bold and = mean, where they are in use."""
    notes = {
        "bold = better than every comparable row, each by a paired test on the same images "
        "(p below 0.05)": bool(best.alone),
        "= the highest and those that no paired test tells from it": bool(best.tied),
    }
    return [note for note, applies in notes.items() if applies]


def _untested(best: "Standings") -> str:
    """Return a note on columns in which a best number is not marked; empty where there is none."""
    names = [*best.untested]
    if not names:
        return ""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED + 1 else ""
    listed_names = ", ".join(names[:_NAMED] if more else names)
    return f"no best is marked in {listed_names}{more}: {best.untested[names[0]]}"


def results_sheet(found: list["TableRow"], *, columns: str | None, sort: str | None) -> TableSheet:
    """The main table as asked for; raise ``UserError`` for an unknown column."""
    from robustbench_cli.report.columns import MINUTES, WORST

    facts = list(found[0].facts)
    measured = [c for c in found[0].cells if any(row.cells[c] for row in found)]

    def known(name: str) -> str:
        if name not in (*facts, *measured):
            raise UserError(f"unknown column {name!r}{hint(name, (*facts, *measured))}")
        return name

    chosen = list(map(known, listed(columns))) or [c for c in measured if c not in (WORST, MINUTES)]
    if not set(chosen) & set(facts):
        chosen = [c for c in facts if c != "model" or not shared(found, c)] + chosen
    if sort is not None:
        by = known(sort.removeprefix("-"))
        ranked = [(row, value.rank) for row in found if (value := _number(row, by))]
        ranked.sort(key=lambda pair: pair[1], reverse=sort.startswith("-"))
        found = [row for row, _ in ranked] + [row for row in found if not _number(row, by)]
    return TableSheet(chosen, found)


def listed(names: str | None) -> list[str]:
    """Return the names in ``--columns``, each once."""
    # ``pgd:steps=5,restarts=2`` is one name: its comma stands before a key.
    parts = re.split(r",(?![a-z_][a-z0-9_]*=)", names or "")
    return list(dict.fromkeys(name.strip() for name in parts if name.strip()))


def shared(found: Sequence["TableRow"], column: str) -> bool:
    """Return True if all rows have the same value in this column."""
    return len({row.facts[column].text for row in found if column in row.facts}) == 1


def row_names(found: Sequence["TableRow"]) -> list[str]:
    """Return a name for each row: its defense, and where several have that, what tells them
    apart."""
    told = [fact for fact in found[0].facts if fact != "defense" and not shared(found, fact)]
    names = [row.facts["defense"].text for row in found]
    return [
        " ".join([name, *(f"{fact} {row.facts[fact].text}" for fact in told)])
        if names.count(name) > 1
        else name
        for name, row in zip(names, found, strict=True)
    ]


def _number(row: "TableRow", column: str) -> "Fact | Measurement | None":
    """Return what a row is sorted by; None where there is nothing, or a number without meaning."""
    from robustbench_cli.report.withheld import WithheldNumber

    found = row.get(column)
    return None if isinstance(found, WithheldNumber) else found


def findings_as_data(shown: Mapping[str, "Measurement"]) -> list[dict[str, Any]]:
    """Return what was found about the numbers of a row as data, with the columns it concerns."""
    pairs = [
        (finding, column)
        for column, cell in shown.items()
        for finding in (cell.trust.findings if cell.trust else ())
    ]
    found: list[Finding] = []
    for finding, _ in pairs:
        if finding not in found:
            found.append(finding)
    return [
        {"columns": list(dict.fromkeys(c for each, c in pairs if each == one)), **asdict(one)}
        for one in found
    ]


def _raw(row: "TableRow", columns: Sequence[str]) -> dict[str, Any]:
    return {k: x for c in columns if (value := row.get(c)) for k, x in value.raw.items()}
