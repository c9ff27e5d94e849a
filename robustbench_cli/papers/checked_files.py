"""Files of published numbers, checked: a fault is told with the name of the file and the line."""

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from robustbench_cli.core.errors import UserError

_T = TypeVar("_T")


def csv_lines(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the place of each line, for messages, and its values by column, without empty ones.

    Raises:
        UserError: the file cannot be read, or has other columns, or a line has other values.
    """
    try:
        with path.open(newline="") as lines:
            reader = csv.DictReader(lines, strict=True)
            if tuple(reader.fieldnames or ()) != columns:
                raise UserError(f"{path} is damaged: its first line must be {','.join(columns)}")
            for row in reader:
                where = f"{path}, line {reader.line_num}"
                if None in row or None in row.values():
                    raise UserError(f"{where} is damaged: it must have {len(columns)} values")
                yield where, {key: value for key, value in row.items() if value}
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged: {error}") from None


def checked(adapter: TypeAdapter[_T], values: Mapping[str, Any], where: str) -> _T:
    """Return the values as the type of the adapter; ``UserError`` names the place and the key."""
    try:
        return adapter.validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise UserError(f"{where} is damaged: {key}: {first['msg']}") from None
