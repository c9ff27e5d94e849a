"""The console that tables are printed on, and what it would show of them.

rich is imported when something is printed: ``--help`` does without.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from robustbench_cli.core.safe_text import printable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

UNLIMITED = 10_000
"""Columns of a console that folds no line."""


def table_console() -> "Console":
    """Return a console as wide as the terminal; in a file or a pipe no line is folded."""
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=UNLIMITED)


def fits_console(console: "Console", part: "RenderableType") -> bool:
    """Return whether the console is wide enough to print this without folding a line."""
    wanted = console.measure(part, options=console.options.update(width=UNLIMITED))
    return wanted.maximum <= console.width


def rendered(console: "Console", parts: "Iterable[RenderableType]") -> str:
    """Return what the console would show, without the blanks that fill its lines."""
    from rich.segment import Segment, Segments

    with console.capture() as capture:
        for part in parts:
            # Only the text is cleaned, not the colours that rich puts around it: a colour that
            # stands in a record is a command to the terminal like any other.
            pieces = [piece for piece in console.render(part) if not piece.control]
            console.print(Segments(Segment(printable(text), style) for text, style, _ in pieces))
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"
