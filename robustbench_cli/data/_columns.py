"""The columns of parquet and hub data sets: selection of images and labels, and decoding of labels.

Tables are Apache Arrow's (Apache Software Foundation, 2016), https://arrow.apache.org/docs/python.
"""

import importlib
import json
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from robustbench_cli.core.errors import UserError, hint
from robustbench_cli.data import UNLABELLED, SplitName

IMAGE_NAMES = ("img", "image")
"""Names of image columns, tried first where several columns could be meant."""
LABEL_NAMES = ("label", "labels", "fine_label")
"""Names of label columns, tried first where several columns could be meant."""
TEXT_LABEL_NAMES = ("class", "target", "category")
"""Further names of columns whose texts are labels; a text of another name may be anything."""

FROM_ONE = "labels run from 1 to {}: label 1 is taken to be the first class, logit 0"
"""Said where class numbers begin at 1."""


@dataclass(frozen=True)
class Part:
    """One table of a split: a parquet file, or a split from the hub."""

    where: str
    """Name of the table in messages."""
    folder: Path
    """Folder that paths of images kept beside the table are relative to."""
    top: Path
    """Folder of the whole data set, which those paths must not leave."""
    schema: Any
    """A ``pyarrow.Schema``."""
    rows: int
    read: Callable[[str], Any]
    """Returns a column by name, as a ``pyarrow.ChunkedArray``."""
    batches: Callable[[str], Iterable[Any]]
    """Yields a column in stretches, each a ``pyarrow.Array``; few are in memory at a time."""
    state: str
    """Text that is another one when the table is another."""

    def column(self, name: str) -> Any:
        """Return a column as a ``pyarrow.ChunkedArray``.

        Raises:
            UserError: the file is damaged, or lacks the column.
        """
        try:
            return self.read(name)
        except Exception as error:  # a damaged file, or a shard without the column
            raise UserError(f"{self.where}: column {name!r} cannot be read") from error

    def stretches(self, name: str) -> Iterator[Any]:
        """Yield a column in stretches, each a ``pyarrow.Array``.

        Raises:
            UserError: the file is damaged, or lacks the column.
        """
        try:
            yield from self.batches(name)
        except Exception as error:
            raise UserError(f"{self.where}: column {name!r} cannot be read") from error

    def paths(self, name: str) -> list[str | None]:
        """Return the paths in a column of images, which are Hugging Face's pairs with bytes."""
        struct = importlib.import_module("pyarrow.compute").struct_field
        return [path for each in self.stretches(name) for path in struct(each, "path").to_pylist()]


@dataclass(frozen=True)
class Tables:
    """The tables of a data set, by split."""

    parts: Mapping[SplitName, list[Part]]
    """The tables of each split; one of them may have none."""
    unfit: str | None
    """Reason why the set cannot be trained on, where it has no test split; else None."""
    no_train: str | None = None
    """Message that there is no training split, where there is none."""
    note: str | None = None
    """What the user should know of which tables were taken."""
    alone: bool = False
    """Whether both splits are the same tables, for want of others."""

    @property
    def schema(self) -> Any:
        """The ``pyarrow.Schema`` of the first table."""
        return next(part for parts in self.parts.values() for part in parts).schema


class Labels(NamedTuple):
    """The labels of a split, as class numbers."""

    y: NDArray[np.int64]
    """Class numbers (N), ``UNLABELLED`` where none is known."""
    classes: tuple[str, ...]
    """Names of the classes; empty where there are no labels."""
    absent: str | None = None
    """Reason why there are no labels; None where there are."""
    unfit: str | None = None
    """Reason why the labels cannot be those of a data set; None where they can."""
    note: str | None = None
    """What the user should know of how they were read."""


def images_in(name: str, tables: Tables, given: str | None) -> str:
    """Return the name of the column that holds the images.

    Args:
        name: the data set in messages.
        given: the column that the user named, if any.

    Raises:
        UserError: there is none, or there are several and none is ``given``.
    """
    schema = tables.schema
    return _choose(name, "image", given, schema, _bytes_in(schema), IMAGE_NAMES)


def labels_in(name: str, tables: Tables, split: SplitName, given: str | None) -> Labels:
    """Return the labels of a split, from the column ``given`` or the only one that can be meant.

    Labels of both splits are read, so that they agree on the classes; the other split may lack
    labels.

    Raises:
        UserError: there is no column ``given``, or the label column cannot be read.
    """
    schema = tables.schema
    fitting = _labels_fit(schema)
    absent = _unclear("label", schema, fitting, LABEL_NAMES)
    if given is None and absent:
        rows = sum(part.rows for part in tables.parts[split])
        return Labels(np.full(rows, UNLABELLED), (), absent)
    texts = [given] if given in _texts_in(schema) else []
    label = _choose(name, "label", given, schema, [*fitting, *texts], LABEL_NAMES)
    if label in _texts_in(schema):
        return _text_labels(tables, split, label)
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
    gap = note = None
    if len(seen) > 1 and np.array_equal(seen, np.arange(1, len(seen) + 1)):
        note = FROM_ONE.format(len(seen))
    elif not np.array_equal(seen, np.arange(len(seen))):
        gap = (
            f"labels in {label!r} must be 0..C-1 without a gap, "
            f"got {len(seen)} values in {seen[0]}..{seen[-1]}"
        )
    y = np.where(own < 0, UNLABELLED, np.searchsorted(seen, own))
    return Labels(y, tuple(map(str, seen)), unfit=gap, note=note)


def _numbers(parts: Sequence[Part], column: str) -> NDArray[np.int64]:
    """Return a column of integers (N) int64, with -1 where a value is null."""
    columns = []
    for part in parts:
        found = part.column(column)
        if column not in _integers_in(part.schema):  # files of one split can have different types
            kind = textwrap.shorten(str(found.type), 80)
            raise UserError(f"{part.where}: column {column!r} holds no labels, but {kind}")
        columns.append(found.cast("int64", safe=False).fill_null(-1).to_numpy())
    return np.concatenate(columns)


def _text_labels(tables: Tables, split: SplitName, label: str) -> Labels:
    """Return labels that are texts: classes are numbered in the order of their sorted names."""
    found = {
        each: [text for part in parts for text in part.column(label).to_pylist()]
        for each, parts in tables.parts.items()
        if each == split or (parts and all(label in part.schema.names for part in parts))
    }
    known = sorted({text for texts in found.values() for text in texts if text is not None})
    numbers = {text: number for number, text in enumerate(known)}
    y = np.array([numbers.get(text, UNLABELLED) for text in found[split]], np.int64)
    return Labels(y, tuple(known))


def _labels_fit(schema: Any) -> list[str]:
    """Return the columns that can hold labels: integers, or else texts with the name of labels."""
    named = [name for name in _texts_in(schema) if name in (*LABEL_NAMES, *TEXT_LABEL_NAMES)]
    return _integers_in(schema) + named


def _texts_in(schema: Any) -> list[str]:
    """Return the columns of texts."""
    types = importlib.import_module("pyarrow").types
    return [
        field.name
        for field in schema
        if types.is_string(field.type) or types.is_large_string(field.type)
    ]


def _names(schema: Any, label: str) -> tuple[str, ...]:
    """Return the class names that Hugging Face wrote into the table's metadata; none if absent."""
    written = (schema.metadata or {}).get(b"huggingface", b"{}")
    feature = json.loads(written).get("info", {}).get("features", {}).get(label, {})
    names = feature.get("names") if isinstance(feature, dict) else None
    return tuple(map(str, names or ()))


def _bytes_in(schema: Any) -> list[str]:
    """Return the columns of bytes, either plain or as Hugging Face's pair of bytes and path."""
    types = importlib.import_module("pyarrow").types

    def is_bytes(kind: Any) -> bool:
        return bool(types.is_binary(kind) or types.is_large_binary(kind))

    def is_image(kind: Any) -> bool:
        if types.is_struct(kind):
            return any(field.name == "bytes" and is_bytes(field.type) for field in kind)
        return is_bytes(kind)

    return [field.name for field in schema if is_image(field.type)]


def _integers_in(schema: Any) -> list[str]:
    """Return the columns of integers."""
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
    """Return the column given by the user, or the one that is clearly meant, for a role."""
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
    """Return the reason, in words, why no column is clearly meant; None where one is."""
    if not fitting:
        return f"no column of {role}s; it has {', '.join(schema.names)}"
    if len(fitting) > 1 and not {*preferred} & {*fitting}:
        return f"several columns of {role}s: name one as {role}=NAME; it has {', '.join(fitting)}"
    return None
