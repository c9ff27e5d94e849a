"""The tables of ``advbench report --transfer`` and ``--joint``."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from robustbench_cli.cli.formats import Grid, Page, TableEntry
from robustbench_cli.cli.tables import MEANING_OF_ACCURACY, missing_intervals, spread_note
from robustbench_cli.core.safe_text import one_line

if TYPE_CHECKING:
    from robustbench_cli.report.joint_table import JointTable
    from robustbench_cli.report.statistics import Cell
    from robustbench_cli.report.transfer_matrix import Matrix


def transfers(found: Sequence["Matrix"]) -> Page:
    """A table of sources and targets for each attack."""
    objects = [line for matrix in found for line in _pairs(matrix)]
    cells = [cell for matrix in found for cell in matrix.cells.values()]
    own = any(line["white_box"] for line in objects)
    notes = [
        MEANING_OF_ACCURACY + spread_note(cells),
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
            **dict(zip(("low", "high"), (cell.intervals and cell.interval) or (), strict=False)),
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
    lacking = missing_intervals(cells)
    notes = [
        "wrong in all = fooled in every domain by one perturbation, in %: the higher, the stronger "
        "the attack",
        "the other columns: accuracy in each domain at that perturbation, in %"
        + spread_note(cells),
        *[lacking] * bool(lacking),
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
