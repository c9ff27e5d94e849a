"""The files of a paper, checked: whatever is wrong with one is told with its name and line."""

import csv
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from robustbench_cli import papers
from robustbench_cli.core.errors import UserError
from robustbench_cli.papers.paper import CSV_COLUMNS, Paper, PaperCell, Published, Words

_T = TypeVar("_T")

_CELL, _WORDS, _PAPER = TypeAdapter(Published), TypeAdapter(Words), TypeAdapter(Paper)


def load_paper(name: str, folder: Path = papers.FOLDER) -> Paper:
    """The paper that a name or an alias means.

    Raises:
        UserError: an unknown name, or a damaged file.
    """
    name = papers.find_paper(name, folder)
    where, shared = folder / f"{name}.toml", folder / f"{papers.COMMON}.toml"
    words = _checked(_WORDS, papers.read_toml(shared), str(shared))
    cells = _cells(folder / f"{name}.csv", words)
    about = papers.read_toml(where)
    return _checked(_PAPER, {**about, "name": name, "cells": cells, "words": words}, str(where))


def _cells(path: Path, words: Words) -> tuple[Published, ...]:
    """The lines of a CSV file."""
    found: dict[PaperCell, Published] = {}
    try:
        with path.open(newline="") as lines:
            reader = csv.DictReader(lines, strict=True)
            if tuple(reader.fieldnames or ()) != CSV_COLUMNS:
                raise UserError(
                    f"{path} is damaged: its first line must be {','.join(CSV_COLUMNS)}"
                )
            for row in reader:
                where = f"{path}, line {reader.line_num}"
                if None in row or None in row.values():
                    raise UserError(f"{where} is damaged: it must have {len(CSV_COLUMNS)} values")
                cell = _checked(_CELL, {k: v for k, v in row.items() if v}, where)
                if cell.metric not in words.metrics:
                    raise UserError(f"{where} is damaged: unknown metric {cell.metric!r}")
                if cell.place in found:
                    raise UserError(f"{where} is damaged: it gives a number that was given before")
                found[cell.place] = cell
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged: {error}") from None
    return tuple(found.values())


def _checked(adapter: TypeAdapter[_T], values: dict[str, Any], where: str) -> _T:
    try:
        return adapter.validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise UserError(f"{where} is damaged: {key}: {first['msg']}") from None
