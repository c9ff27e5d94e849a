"""``advbench report``: which rows and columns, in which format."""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from robustbench_cli import catalogue
from robustbench_cli.cli import options
from robustbench_cli.cli.listing import drawn, fits, screen
from robustbench_cli.errors import UserError, hint

if TYPE_CHECKING:
    from robustbench_cli.report import Row

Look = TypeVar("Look")


def report(
    format_: Annotated[
        str | None,
        typer.Option(
            "--format",
            "-f",
            help="terminal, md, latex, csv or json (default: terminal, or as --out ends). "
            "csv and json hold fractions in full precision.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write to this file, e.g. table.tex, not to the screen.")
    ] = None,
    results: Annotated[
        Path, typer.Option(help="Where run folders are.", envvar="ADVBENCH_RESULTS")
    ] = Path("results"),
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Rows on this data set only.", autocompletion=catalogue.complete_datasets
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            help="Which, in order: clean,pgd20,worst comes after what a row is; "
            "defense,clean,pgd20 is just that."
        ),
    ] = None,
    sort: Annotated[
        str | None, typer.Option(help="By this column, best first; -pgd20: worst first.")
    ] = None,
    intervals: Annotated[
        bool, typer.Option("--intervals", help="95 % confidence intervals (Wilson).")
    ] = False,
    debug: options.Debug = False,
) -> None:
    """Put every finished evaluation into one table, seeds joined, the best in bold.

    Evaluations of one training run share a row. Runs that differ only in their seed are joined
    as mean and standard deviation. Rows are compared where data set, threat and n are the same.

    \b
    advbench report                                    on the screen
    advbench report --dataset cifar10 --sort autoattack
    advbench report --columns clean,pgd20,autoattack --intervals --out table.tex
    """
    from robustbench_cli import records
    from robustbench_cli.report import rows

    chosen = format_ or (_ENDINGS.get(out.suffix.lower(), out.suffix) if out else "terminal")
    allowed = _ENDINGS.values() if out else FORMATS
    if chosen not in allowed:
        raise UserError(f"no format {chosen!r} for {out or 'the screen'}{hint(chosen, allowed)}")
    found = rows(records.every(results), intervals=intervals)
    if not found:
        raise UserError(
            f"no finished evaluation in {str(results)!r}; evaluate a run first: "
            "advbench eval --attack pgd20"
        )
    text = FORMATS[chosen](sheet(found, dataset=dataset, columns=columns, sort=sort))
    if out is None:
        typer.echo(text, nl=False)
        return
    try:
        records.write_bytes(out, text.encode())
    except OSError as error:
        raise UserError(f"--out {str(out)!r} cannot be written: {error.strerror}") from None
    typer.echo(f"written to {out}", err=True)


@dataclass(frozen=True)
class Sheet:
    """The names of the columns and the rows of a table, in order."""

    columns: list[str]
    rows: list["Row"]

    def looks(
        self,
        fact: Callable[[str], Look],
        number: Callable[[str], Look],
        best: Callable[[str], Look],
    ) -> list[list[Look]]:
        """Every cell as a format writes it."""
        top, facts = self._best(), self.rows[0].facts

        def look(place: int, column: str) -> Look:
            bold = best if (place, column) in top else number
            return (fact if column in facts else bold)(self._text(self.rows[place], column))

        return [[look(place, c) for c in self.columns] for place in range(len(self.rows))]

    def _text(self, row: "Row", column: str) -> str:
        found = row.get(column)
        # A name may come from anywhere: nothing in it may break a line or move a cursor.
        text = "".join(c if c.isprintable() else " " for c in found.text) if found else ""
        return f"{text} †" if row.oracle and column == self.columns[0] else text

    def _best(self) -> set[tuple[int, str]]:
        """The highest accuracies, as they are written, among at least two comparable rows."""
        found: dict[tuple[object, str], dict[int, float]] = defaultdict(dict)
        for place, row in enumerate(self.rows):
            for name, cell in row.cells.items():
                if cell:
                    found[row.setting, name][place] = round(100 * cell.mean, 2)
        return {
            (place, name)
            for (_, name), shares in found.items()
            for place, share in shares.items()
            if len(shares) > 1 and share == max(shares.values())
        }

    def right(self, column: str) -> bool:
        """Whether a column holds numbers, which stand to the right."""
        return column not in self.rows[0].facts or column in ("n", "seeds")

    def notes(self) -> list[str]:
        """What the numbers are, a line each."""
        shown = [cell for row in self.rows for c in self.columns if (cell := row.cells.get(c))]
        spread = "; mean ± std over seeds" if any(cell.std is not None for cell in shown) else ""
        pooled = "; [95 % Wilson interval, seeds pooled]"
        again = sum(row.retrained for row in self.rows)
        notes = {
            "accuracy in %, robust accuracy = right before and after the attack"
            + (pooled if any(cell.intervals for cell in shown) else spread): True,
            "worst = right under every attack of an evaluation": "worst" in self.columns,
            "(1/2) = measured for 1 of 2 seeds": any(cell.partial for cell in shown),
            "† weights chosen by test accuracy: an oracle": any(r.oracle for r in self.rows),
            f"left out: {again} training run(s) that a later one repeats, seed included": again > 0,
        }
        return [note for note, applies in notes.items() if applies]


def sheet(
    found: list["Row"], *, dataset: str | None, columns: str | None, sort: str | None
) -> Sheet:
    """The table as asked for; raise ``UserError`` for an unknown data set or column."""
    if dataset is not None:
        data = [row.facts["dataset"].text for row in found]
        if dataset not in data:
            raise UserError(f"no finished evaluation on dataset {dataset!r}{hint(dataset, data)}")
        found = [row for row, name in zip(found, data, strict=True) if name == dataset]
    facts = list(found[0].facts)
    measured = [c for c in found[0].cells if any(row.cells[c] for row in found)]

    def known(name: str) -> str:
        if name not in (*facts, *measured):
            raise UserError(f"unknown column {name!r}{hint(name, (*facts, *measured))}")
        return name

    # ``pgd:steps=5,restarts=2`` is one name: its comma stands before a key.
    chosen = [name.strip() for name in re.split(r",(?![a-z_]+=)", columns or "") if name.strip()]
    chosen = list(dict.fromkeys(map(known, chosen or measured[:-1])))
    if not set(chosen) & set(facts):
        chosen = [c for c in facts if c != "model" or not _shared(found, c)] + chosen
    if sort is not None:
        by = known(sort.removeprefix("-"))
        ranked = [(row, value.rank) for row in found if (value := row.get(by))]
        ranked.sort(key=lambda pair: pair[1], reverse=sort.startswith("-"))
        found = [row for row, _ in ranked] + [row for row in found if not row.get(by)]
    return Sheet(chosen, found)


def _shared(found: list["Row"], column: str) -> bool:
    """Whether all rows are the same in this respect."""
    return len({row.facts[column].text for row in found if column in row.facts}) == 1


def _terminal(table: Sheet) -> str:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    console = screen()

    def grid(columns: list[str]) -> Table:
        drawing = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        for name in columns:
            justify: Any = "right" if table.right(name) else "left"
            drawing.add_column(Text(name), justify=justify, overflow="fold")
        for cells in Sheet(columns, table.rows).looks(Text, Text, lambda text: Text(text, "bold")):
            drawing.add_row(*cells)
        return drawing

    head, blocks = "", [table.columns]
    if not fits(console, grid(table.columns)):
        # Said once: what all rows share.  In several blocks: the accuracies.
        shared = [c for c in table.columns[1:] if _shared(table.rows, c)]
        head = ", ".join(f"{c} {table.rows[0].facts[c].text}" for c in shared)
        names = [c for c in table.columns if c in table.rows[0].facts and c not in shared]
        blocks = [names]
        for column in (c for c in table.columns if c not in (*shared, *names)):
            if blocks[-1] != names and not fits(console, grid([*blocks[-1], column])):
                blocks.append(names)
            blocks[-1] = [*blocks[-1], column]
    above, below = filter(None, [Text(head)]), map(Text, table.notes())
    grids = [part for block in blocks for part in (grid(block), "")]
    return drawn(console, [*above, *grids, *below])


def _markdown(table: Sheet) -> str:
    escaped = partial(_MARKDOWN.sub, r"\\\g<0>")
    rows = [
        [escaped(name) for name in table.columns],
        ["--:" if table.right(name) else ":--" for name in table.columns],
        *table.looks(escaped, str, lambda text: f"**{text}**"),
    ]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([*lines, "", "\n\n".join(table.notes()), ""])


def _latex(table: Sheet) -> str:
    cells = table.looks(lambda text: text.translate(_TEX), str, lambda text: rf"\textbf{{{text}}}")
    head, *body = (
        " & ".join(row).replace("±", r"$\pm$").replace("†", r"$^\dagger$") + r" \\"
        for row in ([name.translate(_TEX) for name in table.columns], *cells)
    )
    sides = "".join("r" if table.right(name) else "l" for name in table.columns)
    lines = ["% needs the package booktabs", rf"\begin{{tabular}}{{{sides}}}", r"\toprule", head]
    lines += [r"\midrule", *body, r"\bottomrule", r"\end{tabular}"]
    return "\n".join([*lines, *(f"% {note}" for note in table.notes()), ""])


# An underscore inside a word emphasises nothing.
_MARKDOWN = re.compile(r"[\\`*|<\[\]~]|(?<![^\W_])_|_(?![^\W_])")
_TEX = str.maketrans(
    {
        **{c: f"\\{c}" for c in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        # A row that starts with a bracket would be an argument of the line break before it.
        **{c: f"{{{c}}}" for c in "[]"},
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
    }
)


def _csv(table: Sheet) -> str:
    import pandas as pd

    names = dict.fromkeys(k for c in table.columns for row in table.rows for k in _raw(row, [c]))
    rows = [_raw(row, table.columns) for row in table.rows]
    return pd.DataFrame(rows, columns=list(names)).to_csv(index=False, lineterminator="\n")


def _json(table: Sheet) -> str:
    rows = [
        {
            **_raw(row, [*row.facts, *table.columns]),
            "seeds": list(row.seeds),
            "correct": {c: cell.correct for c in table.columns if (cell := row.cells.get(c))},
            "oracle": row.oracle,
            "runs": list(row.runs),
        }
        for row in table.rows
    ]
    return json.dumps(rows, indent=2, ensure_ascii=False) + "\n"


def _raw(row: "Row", columns: Sequence[str]) -> dict[str, Any]:
    return {k: x for c in columns if (value := row.get(c)) for k, x in value.raw.items()}


FORMATS: Mapping[str, Callable[[Sheet], str]] = {
    "terminal": _terminal,
    "md": _markdown,
    "latex": _latex,
    "csv": _csv,
    "json": _json,
}
_ENDINGS = {".md": "md", ".tex": "latex", ".csv": "csv", ".json": "json"}
