"""The tables of what ``explain``, ``invert`` and ``retrieve`` measure."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import typer

from robustbench_cli.cli.formats import TABLE_FORMATS, Grid, Page, TableEntry
from robustbench_cli.core.safe_text import one_line

if TYPE_CHECKING:
    from robustbench_cli.report.measure_table import MeasureTable

_FACTS = ("model", "of", "seeds")


def print_measures(folder: Path, *, as_json: bool = False) -> None:
    """Print what a run measured, then its folder; or both as JSON."""
    from robustbench_cli.cli.json_output import print_outcome
    from robustbench_cli.report.measure_table import measure_tables
    from robustbench_cli.runs import records

    if as_json:
        print_outcome(folder)
        return
    run = records.read(folder)
    typer.echo(TABLE_FORMATS["terminal"](measures_page(measure_tables([run], run.kind))), nl=False)
    typer.echo(folder)


def measures_page(tables: "Sequence[MeasureTable]") -> Page:
    """Return tables of measures, ready to be written."""
    objects = [
        {
            "kind": table.kind,
            **{key: table.about[key] for key in ("dataset", "n")},
            "model": line.subject,
            "of": line.of,
            **{
                name: fmean(cell.values) if cell.values else None
                for name, cell in line.cells.items()
            },
            "values": {name: list(cell.values) for name, cell in line.cells.items()},
            "notes": {name: list(cell.notes) for name, cell in line.cells.items() if cell.notes},
            "seeds": list(line.seeds),
            "runs": list(line.runs),
        }
        for table in tables
        for line in table.lines
    ]
    joined = ("values", "notes", "seeds", "runs")
    lines = [
        {**{k: v for k, v in each.items() if k not in joined}, "runs": ", ".join(each["runs"])}
        for each in objects
    ]
    names = dict.fromkeys(key for line in lines for key in line)
    spread = any(len(cell.values) > 1 for t in tables for e in t.lines for cell in e.cells.values())
    return Page(
        grids=[_grid(table) for table in tables],
        notes=["shares in %" + "; ± standard deviation over seeds" * spread],
        lines=[{name: line.get(name) for name in names} for line in lines],
        objects=objects,
        legend=[*dict.fromkeys(_notes(tables))],
    )


def _grid(table: "MeasureTable") -> Grid:
    seeds = any(len(line.runs) > 1 for line in table.lines)
    facts = [name for name in _FACTS if name != "seeds" or seeds]
    rows = []
    for line in table.lines:
        about = {"model": line.subject, "of": line.of, "seeds": str(len(line.runs))}
        cells = [line.cells[c].text if c in line.cells else "" for c in table.columns]
        rows.append([TableEntry(one_line(text)) for text in (*(about[f] for f in facts), *cells)])
    subjects = {line.subject for line in table.lines}
    return Grid(
        title=one_line(table.title),
        columns=[*facts, *table.columns],
        rows=rows,
        facts=frozenset(facts),
        left=frozenset(facts) - {"seeds"},
        shared={"model": one_line(next(iter(subjects)))} if len(subjects) == 1 else {},
    )


def _notes(tables: "Sequence[MeasureTable]") -> Iterator[str]:
    """Yield what is to be known of marked numbers and of those that are not there."""
    for table in tables:
        for line in table.lines:
            for name, cell in line.cells.items():
                for note in cell.notes:
                    mark = "*" if cell.values else "n/a"
                    yield one_line(f"{mark} {line.subject}, {line.of}, {name}: {note}")
