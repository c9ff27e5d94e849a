"""Output of a command's tables: to the screen, or whole into a file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from robustbench_cli.cli.formats import FORMAT_BY_ENDING, TABLE_FORMATS, Page
from robustbench_cli.core.errors import UserError, hint
from robustbench_cli.core.safe_text import printable


def format_of(name: str | None, out: Path | None) -> str:
    """The format that ``--format`` and ``--out`` mean; raise ``UserError`` if it cannot be had."""
    chosen = name or (FORMAT_BY_ENDING.get(out.suffix.lower(), out.suffix) if out else "terminal")
    allowed = FORMAT_BY_ENDING.values() if out else TABLE_FORMATS
    if chosen not in allowed:
        raise UserError(f"no format {chosen!r} for {out or 'the screen'}{hint(chosen, allowed)}")
    return chosen


def left_out(error: UserError) -> None:
    """Say that a damaged record is not in a table."""
    typer.echo(printable(f"warning: {error}; left out"), err=True)


def put(page: Page, chosen: str, out: Path | None) -> None:
    """Print the tables, or write them to a file."""
    from robustbench_cli.core import atomic_files

    written = TABLE_FORMATS[chosen](page)
    if out is None:
        typer.echo(written, nl=False)
    else:
        with writing("--out", out):
            atomic_files.write_bytes_atomically(out, written.encode())


@contextmanager
def writing(option: str, *paths: Path) -> Iterator[None]:
    """Say which files were written, or raise ``UserError`` that tells why they were not."""
    try:
        yield
    except OSError as error:
        named = str(paths[0])
        raise UserError(f"{option} {named!r} cannot be written: {error.strerror}") from None
    typer.echo(f"written to {' and '.join(map(str, paths))}", err=True)
