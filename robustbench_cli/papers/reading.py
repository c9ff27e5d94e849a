"""The files of a paper, checked: whatever is wrong with one is told with its name and line."""

from pathlib import Path

from pydantic import TypeAdapter

from robustbench_cli import papers
from robustbench_cli.core.errors import UserError
from robustbench_cli.papers.checked_files import checked, csv_lines
from robustbench_cli.papers.paper import CSV_COLUMNS, Paper, PaperCell, Published, Words

_CELL, _WORDS, _PAPER = TypeAdapter(Published), TypeAdapter(Words), TypeAdapter(Paper)


def load_paper(name: str, folder: Path = papers.FOLDER) -> Paper:
    """The paper that a name or an alias means.

    Raises:
        UserError: an unknown name, or a damaged file.
    """
    name = papers.find_paper(name, folder)
    where, shared = folder / f"{name}.toml", folder / f"{papers.COMMON}.toml"
    words = checked(_WORDS, papers.read_toml(shared), str(shared))
    cells = _cells(folder / f"{name}.csv", words)
    about = papers.read_toml(where)
    return checked(_PAPER, {**about, "name": name, "cells": cells, "words": words}, str(where))


def _cells(path: Path, words: Words) -> tuple[Published, ...]:
    """The lines of a CSV file."""
    found: dict[PaperCell, Published] = {}
    for where, row in csv_lines(path, CSV_COLUMNS):
        cell = checked(_CELL, row, where)
        if cell.metric not in words.metrics:
            raise UserError(f"{where} is damaged: unknown metric {cell.metric!r}")
        if cell.place in found:
            raise UserError(f"{where} is damaged: it gives a number that was given before")
        found[cell.place] = cell
    return tuple(found.values())
