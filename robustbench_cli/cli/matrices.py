"""The tables of ``advbench report --transfer`` and ``--joint``."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from robustbench_cli.cli.formats import Grid, Page, TableEntry
from robustbench_cli.cli.tables import (
    MEANING_OF_ACCURACY,
    findings_as_data,
    missing_intervals,
    spread_note,
)
from robustbench_cli.core.safe_text import one_line

if TYPE_CHECKING:
    from robustbench_cli.report.joint_table import JointTable
    from robustbench_cli.report.statistics import Cell, Measurement
    from robustbench_cli.report.transfer_matrix import Matrix
    from robustbench_cli.report.trust_legend import JudgedNumber
    from robustbench_cli.report.withheld import WithheldNumber


def transfers(found: Sequence["Matrix"]) -> Page:
    """A table of sources and targets for each attack."""
    from robustbench_cli.report.trust_legend import trust_legend

    objects = [line for matrix in found for line in _pairs(matrix)]
    cells = [cell for matrix in found for cell in matrix.cells.values()]
    own = any(line["white_box"] for line in objects)
    notes = [
        MEANING_OF_ACCURACY + spread_note(cells),
        "rows: the model that images were crafted on; columns: the one they were tried on",
        *(["with *: white box, a model's own images"] if own else []),
    ]
    return Page(
        grids=list(map(_grid, found)),
        notes=notes,
        lines=[{k: v for k, v in line.items() if k != "findings"} for line in objects],
        objects=objects,
        legend=trust_legend(
            [each for matrix in found for each in _judged(matrix)],
            unseen=sum(matrix.before_checks for matrix in found),
        ),
    )


def _judged(matrix: "Matrix") -> list["JudgedNumber"]:
    """Return the numbers of a matrix with how far each can be trusted."""
    from robustbench_cli.report.trust_legend import JudgedNumber

    names = matrix.names
    return [
        *(
            JudgedNumber(row=f"{names[target]}, clean", column=matrix.attack, trust=cell.trust)
            for target, cell in matrix.clean.items()
            if cell.trust
        ),
        *(
            JudgedNumber(
                row=f"{names[target]} on images from {names[source]}",
                column=matrix.attack,
                trust=cell.trust,
            )
            for (source, target), cell in matrix.cells.items()
            if cell.trust
        ),
    ]


_CORNER, _UNCHANGED = "crafted on", "nothing (clean)"


def _grid(matrix: "Matrix") -> Grid:
    def entry(cell: "Measurement | None", own: bool = False) -> TableEntry:
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
    keys = ("dataset", "norm", "eps", "mask", "rejects", "n")
    about = {key: matrix.about[key] for key in keys if key in matrix.about}
    return [
        {
            "attack": matrix.attack,
            **about,
            "source": matrix.names[source],
            "target": matrix.names[target],
            "white_box": source == target,
            **_numbers("clean", matrix.clean[target]),
            **_numbers("robust_accuracy", cell),
            **_ends(cell),
            "findings": findings_as_data({"robust_accuracy": cell}),
            "source_weights": source,
            "target_weights": target,
            "run": matrix.runs[source, target],
        }
        for source in matrix.sources
        for target in matrix.targets
        if (cell := matrix.cells.get((source, target)))
    ]


def _numbers(key: str, cell: "Cell | WithheldNumber") -> dict[str, Any]:
    """Return an accuracy and its trust as data; None where it means nothing."""
    mean = None if math.isnan(cell.mean) else cell.mean
    if cell.trust is None:
        return {key: mean}
    found = {} if cell.trust.found is None else {f"{key}_found": cell.trust.found}
    return {key: mean, f"{key}_trust": cell.trust.trust, **found}


def _ends(cell: "Cell | WithheldNumber") -> dict[str, float]:
    """Return the ends of an accuracy's interval, where that is wanted."""
    from robustbench_cli.report.withheld import WithheldNumber

    if isinstance(cell, WithheldNumber) or not (cell.intervals and cell.interval):
        return {}
    return dict(zip(("low", "high"), cell.interval, strict=True))


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
    lacking = missing_intervals(cells)
    notes = [
        "wrong in all = fooled in every domain by one perturbation, in %: the higher, the stronger "
        "the attack",
        "the other columns: accuracy in each domain at that perturbation, in %"
        + spread_note(cells),
        *[lacking] * bool(lacking),
        "joint attacks are not checked: nothing is known of what hides the truth",
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
