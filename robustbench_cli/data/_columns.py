"""The columns of tables: which hold images and labels, and what the labels say.

Apache Arrow (Apache Software Foundation, 2016), https://arrow.apache.org/docs/python.
"""

import importlib
import json
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from robustbench_cli.core.errors import UserError, hint
from robustbench_cli.data import UNLABELLED, SplitName

IMAGE_NAMES = ("img", "image")
LABEL_NAMES = ("label", "labels", "fine_label")
"""Columns that are taken first where several could be meant."""


@dataclass(frozen=True)
class Part:
    """One table of a split: a parquet file, or what the hub gave."""

    where: str
    folder: Path
    """What the paths of images that are kept beside the table start from."""
    schema: Any
    """A ``pyarrow.Schema``."""
    rows: int
    read: Callable[[str], Any]
    """A column by name, a ``pyarrow.ChunkedArray``."""

    def column(self, name: str) -> Any:
        try:
            return self.read(name)
        except Exception as error:  # a damaged file, or a shard without the column
            raise UserError(f"{self.where}: column {name!r} cannot be read") from error


@dataclass(frozen=True)
class Tables:
    """What there is of a data set."""

    parts: Mapping[SplitName, list[Part]]
    """By split; ``test`` may have none."""
    unfit: str | None
    """What is said of a data set then."""


class Labels(NamedTuple):
    """A split's column of labels, as numbers of classes."""

    y: NDArray[np.int64]
    classes: tuple[str, ...]
    absent: str | None = None
    """Why there are none."""
    unfit: str | None = None
    """Why they cannot be those of a data set."""


def images_in(name: str, tables: Tables, given: str | None) -> str:
    """The column of images.

    Raises:
        UserError: there is none, or there are several and none is ``given``.
    """
    schema = tables.parts["train"][0].schema
    return _choose(name, "image", given, schema, _bytes_in(schema), IMAGE_NAMES)


def labels_in(name: str, tables: Tables, split: SplitName, given: str | None) -> Labels:
    """The labels of a split, of the column ``given`` or the one that must be meant.

    Both splits are looked at, so that they agree on the classes; the other one may lack labels.

    Raises:
        UserError: there is no column ``given``, or the one of labels cannot be read.
    """
    schema = tables.parts["train"][0].schema
    fitting = _integers_in(schema)
    absent = _unclear("label", schema, fitting, LABEL_NAMES)
    if given is None and absent:
        rows = sum(part.rows for part in tables.parts[split])
        return Labels(np.full(rows, UNLABELLED), (), absent)
    label = _choose(name, "label", given, schema, fitting, LABEL_NAMES)
    numbers = {
        each: _numbers(parts, label)
        for each, parts in tables.parts.items()
        if each == split or (parts and all(label in _integers_in(part.schema) for part in parts))
    }
    own, names = numbers[split], _names(schema, label)
    if names:
        return Labels(own, names)
    every = np.concatenate(list(numbers.values()))
    seen = np.unique(every[every >= 0])
    gap = None
    if not np.array_equal(seen, np.arange(len(seen))):
        gap = (
            f"labels in {label!r} must be 0..C-1 without a gap, "
            f"got {len(seen)} values in {seen[0]}..{seen[-1]}"
        )
    y = np.where(own < 0, UNLABELLED, np.searchsorted(seen, own))
    return Labels(y, tuple(map(str, seen)), unfit=gap)


def _numbers(parts: Sequence[Part], column: str) -> NDArray[np.int64]:
    """What a column holds; -1 where it holds nothing."""
    columns = []
    for part in parts:
        found = part.column(column)
        if column not in _integers_in(part.schema):  # one file can differ from the others
            kind = textwrap.shorten(str(found.type), 80)
            raise UserError(f"{part.where}: column {column!r} holds no labels, but {kind}")
        columns.append(found.cast("int64", safe=False).fill_null(-1).to_numpy())
    return np.concatenate(columns)


def _names(schema: Any, label: str) -> tuple[str, ...]:
    """Those of the classes, if Hugging Face wrote them beside the table."""
    written = (schema.metadata or {}).get(b"huggingface", b"{}")
    feature = json.loads(written).get("info", {}).get("features", {}).get(label, {})
    names = feature.get("names") if isinstance(feature, dict) else None
    return tuple(map(str, names or ()))


def _bytes_in(schema: Any) -> list[str]:
    """Columns of bytes, alone or as Hugging Face's pair of bytes and path."""
    types = importlib.import_module("pyarrow").types

    def is_bytes(kind: Any) -> bool:
        return bool(types.is_binary(kind) or types.is_large_binary(kind))

    def is_image(kind: Any) -> bool:
        if types.is_struct(kind):
            return any(field.name == "bytes" and is_bytes(field.type) for field in kind)
        return is_bytes(kind)

    return [field.name for field in schema if is_image(field.type)]


def _integers_in(schema: Any) -> list[str]:
    types = importlib.import_module("pyarrow").types
    return [field.name for field in schema if types.is_integer(field.type)]


def _choose(
    name: str,
    role: str,
    given: str | None,
    schema: Any,
    fitting: Sequence[str],
    preferred: Sequence[str],
) -> str:
    """The column of images or labels: the one given, or the one that stands out."""
    if given is not None:
        if given not in schema.names:
            raise UserError(f"{name} has no column {given!r}{hint(given, schema.names)}")
        if given not in fitting:
            kind = textwrap.shorten(str(schema.field(given).type), 80)
            raise UserError(f"{name}: column {given!r} holds no {role}s, but {kind}")
        return given
    if why := _unclear(role, schema, fitting, preferred):
        raise UserError(f"{name} has {why}")
    return next(each for each in (*preferred, *fitting) if each in fitting)


def _unclear(
    role: str, schema: Any, fitting: Sequence[str], preferred: Sequence[str]
) -> str | None:
    """Why no column stands out, in words; None where one does."""
    if not fitting:
        return f"no column of {role}s; it has {', '.join(schema.names)}"
    if len(fitting) > 1 and not {*preferred} & {*fitting}:
        return f"several columns of {role}s: name one as {role}=NAME; it has {', '.join(fitting)}"
    return None
