"""Tables as text: on a terminal, in Markdown, in LaTeX, and as data."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from robustbench_cli.cli.console import fits_console, rendered, table_console
from robustbench_cli.core.safe_text import printable

if TYPE_CHECKING:
    from robustbench_cli.cli.page_html import PageExtras


@dataclass(frozen=True)
class TableEntry:
    """The entry of one row and column of a table."""

    text: str
    best: bool = False


@dataclass(frozen=True, kw_only=True)
class Grid:
    """One table."""

    columns: Sequence[str]
    rows: Sequence[Sequence[TableEntry]]
    facts: frozenset[str]
    """Columns that say what a row is; the others hold what was measured."""
    left: frozenset[str]
    """Columns that stand to the left."""
    title: str = ""
    shared: Mapping[str, str] = field(default_factory=dict)
    """Facts that all rows have in common: on a narrow screen they are said once."""
    prose: frozenset[str] = frozenset()
    """Columns of words, which take what room is left."""

    def only(self, columns: Sequence[str]) -> list[list[TableEntry]]:
        """The rows with these columns."""
        places = [self.columns.index(name) for name in columns]
        return [[row[place] for place in places] for row in self.rows]


@dataclass(frozen=True, kw_only=True)
class Page:
    """Tables, what they mean, and the same as data."""

    grids: Sequence[Grid]
    notes: Sequence[str]
    lines: Sequence[Mapping[str, Any]]
    """The rows of a CSV file."""
    objects: Sequence[Mapping[str, Any]]
    """The same for JSON, where values may be lists."""
    head: Sequence[str] = ()
    """The lines above the tables."""
    listing: Sequence[str] = ()
    """Commands, each whole on its line."""
    legend: Sequence[str] = ()
    """The meaning of marks, and why numbers have them: in LaTeX it is printed, too."""
    extras: "Callable[[], PageExtras] | None" = None
    """Collects what only a page of HTML shows."""


def _terminal(page: Page) -> str:
    from rich.text import Text

    console = table_console()
    parts: list[Any] = [*map(Text, page.head), *[""] * bool(page.head)]
    for grid in page.grids:
        head, blocks = "", [list(grid.columns)]
        if not grid.prose and not fits_console(console, _drawing(grid, grid.columns)):
            # Said once: what all rows share.  In several blocks: the numbers.
            head = ", ".join(f"{name} {fact}" for name, fact in grid.shared.items())
            names = [c for c in grid.columns if c in grid.facts and c not in grid.shared]
            blocks = [names]
            for column in (c for c in grid.columns if c not in (*grid.shared, *names)):
                wider = [*blocks[-1], column]
                if blocks[-1] != names and not fits_console(console, _drawing(grid, wider)):
                    blocks.append(names)
                blocks[-1] = [*blocks[-1], column]
        parts += [Text(text) for text in (grid.title, head) if text]
        parts += [part for block in blocks for part in (_drawing(grid, block), "")]
    # A command that is folded cannot be copied.
    listing = "".join(f"{line}\n" for line in ("", *page.listing)) if page.listing else ""
    return rendered(console, [*parts, *map(Text, (*page.notes, *page.legend))]) + listing


def _drawing(grid: Grid, columns: Sequence[str]) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    drawing = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name in columns:
        justify: Any = "left" if name in grid.left else "right"
        whole = bool(grid.prose) and name not in grid.prose
        drawing.add_column(Text(name), justify=justify, overflow="fold", no_wrap=whole)
    for row in grid.only(columns):
        drawing.add_row(*(Text(entry.text, "bold" if entry.best else "") for entry in row))
    return drawing


def _looks(grid: Grid, escaped: Callable[[str], str], bold: str) -> list[list[str]]:
    """Every place as a format writes it; numbers hold nothing that must be escaped."""

    def look(name: str, entry: TableEntry) -> str:
        text = escaped(entry.text) if name in grid.facts else entry.text
        return bold.replace("TEXT", text) if entry.best else text

    return [list(map(look, grid.columns, row)) for row in grid.rows]


def _markdown(page: Page) -> str:
    escaped = partial(_MARKDOWN.sub, r"\\\g<0>")
    lines = [line for text in page.head for line in (escaped(text), "")]
    for grid in page.grids:
        rows = [
            [escaped(name) for name in grid.columns],
            [":--" if name in grid.left else "--:" for name in grid.columns],
            *_looks(grid, escaped, "**TEXT**"),
        ]
        lines += [escaped(grid.title), ""] if grid.title else []
        lines += [*(f"| {' | '.join(row)} |" for row in rows), ""]
    listing = ["", "```sh", *page.listing, "```"] if page.listing else []
    below = "\n\n".join([*page.notes, *map(escaped, page.legend)])
    return printable("\n".join([*lines, below, *listing, ""]))


def _latex(page: Page) -> str:
    lines = ["% needs the package booktabs", *(f"% {text}" for text in page.head)]
    for grid in page.grids:
        cells = _looks(grid, lambda text: text.translate(_TEX), r"\textbf{TEXT}")
        head, *body = (
            _signs_in_tex(" & ".join(row)) + r" \\"
            for row in ([name.translate(_TEX) for name in grid.columns], *cells)
        )
        sides = "".join("l" if name in grid.left else "r" for name in grid.columns)
        lines += [f"% {grid.title}"] if grid.title else []
        lines += [rf"\begin{{tabular}}{{{sides}}}", r"\toprule", head, r"\midrule", *body]
        lines += [r"\bottomrule", r"\end{tabular}"]
    if page.legend:
        # A reader of the paper needs it beside the numbers.
        dashes = (text.translate(_TEX).replace("--", "-{}-") for text in page.legend)
        said = [rf"{_signs_in_tex(text)}\par" for text in dashes]
        lines += [r"\par\smallskip", r"{\footnotesize", *said, "}"]
    return printable(
        "\n".join([*lines, *(f"% {text}" for text in (*page.notes, *page.listing)), ""])
    )


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
_SIGN = {
    "±": r"$\pm$",
    "†": r"$^\dagger$",
    "∞": r"$\infty$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "°": r"$^\circ$",
}
_SIGNS = re.compile("|".join(_SIGN))


def _signs_in_tex(text: str) -> str:
    """Return the text with TeX's commands for signs."""
    return _SIGNS.sub(lambda sign: _SIGN[sign[0]], text)


def _csv(page: Page) -> str:
    import pandas as pd

    names = dict.fromkeys(name for line in page.lines for name in line)
    lines = [{key: _spreadsheet(value) for key, value in line.items()} for line in page.lines]
    table = pd.DataFrame(lines, columns=list(names)).rename(columns=_spreadsheet)
    return table.to_csv(index=False, lineterminator="\n")


_FORMULA = re.compile(r"[=+\-@\t\r]")


def _spreadsheet(value: Any) -> Any:
    """Return a text that a spreadsheet shows as it is: no formula, nothing for a terminal."""
    if not isinstance(value, str):
        return value
    text = printable(" ".join(value.splitlines()))
    return f"'{text}" if _FORMULA.match(value) else text


def _json(page: Page) -> str:
    text = json.dumps(list(page.objects), indent=2, ensure_ascii=False)
    # JSON escapes control characters, but not those above 127.
    return _UPPER_CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n"


_UPPER_CONTROLS = re.compile(r"[\x7f-\x9f]")


def _html(page: Page) -> str:
    from robustbench_cli.cli.page_html import html_page

    return html_page(page)


TABLE_FORMATS: Mapping[str, Callable[[Page], str]] = {
    "terminal": _terminal,
    "md": _markdown,
    "latex": _latex,
    "csv": _csv,
    "json": _json,
    "html": _html,
}
FORMAT_BY_ENDING = {
    ".md": "md",
    ".tex": "latex",
    ".csv": "csv",
    ".json": "json",
    ".html": "html",
}
WITH_INTERVALS = frozenset({"html"})
"""The formats in which the main table has confidence intervals, asked for or not."""
