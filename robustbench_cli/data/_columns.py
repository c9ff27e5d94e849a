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

from robustbench_cli.data import UNLABELLED, SplitName
from robustbench_cli.errors import UserError, hint

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

    Both splits are looked at, so that they agree on the classes.

    Raises:
        UserError: several columns may be meant, or the one that is cannot be read.
    """
    schema = tables.parts["train"][0].schema
    fitting = _integers_in(schema)
    if given is None and not fitting:
        rows = sum(part.rows for part in tables.parts[split])
        unfit = f"no column of labels; it has {', '.join(schema.names)}"
        return Labels(np.full(rows, UNLABELLED), (), unfit)
    label = _choose(name, "label", given, schema, fitting, LABEL_NAMES)
    numbers = {each: _numbers(parts, label) for each, parts in tables.parts.items() if parts}
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
    return Labels(y, tuple(map(str, seen)), gap)


def _numbers(parts: Sequence[Part], column: str) -> NDArray[np.int64]:
    """What a column holds; -1 where it holds nothing."""
    columns = [part.column(column).cast("int64", safe=False).fill_null(-1) for part in parts]
    return np.concatenate([each.to_numpy() for each in columns])


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
    known = [each for each in preferred if each in fitting] or list(fitting)
    if not known:
        raise UserError(f"{name} has no column of {role}s; it has {', '.join(schema.names)}")
    if len(known) > 1 and known[0] not in preferred:
        raise UserError(
            f"{name} has several columns of {role}s: name one as {role}=NAME; "
            f"it has {', '.join(known)}"
        )
    return known[0]
