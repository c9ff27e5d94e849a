"""Image sets as Hugging Face keeps them (Lhoest et al., 2021), https://arxiv.org/abs/2109.02846.

Parquet files on disk, or a name on the hub with the optional package ``datasets``.
"""

import importlib
import json
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import PositiveInt

from robustbench_cli.data import DATASETS, Dataset, Split, SplitName
from robustbench_cli.data.decode import Encoded, checked, decode, layout
from robustbench_cli.errors import UserError, hint
from robustbench_cli.noise import generator

IMAGE_NAMES = ("img", "image")
LABEL_NAMES = ("label", "labels", "fine_label")
"""Columns that are taken first where several could be meant."""
HUB_NAME = re.compile(r"\w[\w.-]*(/[\w.-]+)?")
EXTRA = "needs the extra: pip install '.[hf]' where advbench is cloned"


@dataclass(frozen=True)
class Part:
    """One table of a split: a parquet file, or what the hub gave."""

    where: str
    folder: Path
    """What the paths of images that are kept beside the table start from."""
    schema: Any
    """A ``pyarrow.Schema``."""
    read: Callable[[str], Any]
    """A column by name, a ``pyarrow.ChunkedArray``."""

    def column(self, name: str) -> Any:
        try:
            return self.read(name)
        except Exception as error:  # a damaged file, or a shard without the column
            raise UserError(f"{self.where}: column {name!r} cannot be read") from error


@DATASETS.register("hf", positional="path")
@dataclass(frozen=True, kw_only=True)
class HuggingFace(Dataset):
    """A folder of parquet files, or a data set on the Hugging Face hub.

    ``augment`` starts at "none": for small photographs write ``hf:PATH,augment=crop-flip``.
    Where no split is called "test", the one called "validation" takes its place.
    """

    path: str
    """A folder, a parquet file (meaning the folder it is in), or a name on the hub."""
    image: str | None = None
    """The column of images; None: found by its content, ``img`` and ``image`` first."""
    label: str | None = None
    """The column of integer labels; None: found likewise, ``label`` first."""
    test: str = "test"
    """The name of the test split."""
    size: PositiveInt | None = None
    """Scale and crop every image to this many pixels a side; None: they have one size already."""

    defaults: ClassVar[Mapping[str, Any]] = {"model": {"name": "preact-resnet-18"}}

    def load(self, split: SplitName, root: Path) -> Split:
        name = f"hf:{self.path}"
        place = Path(self.path).expanduser()
        if place.exists() or place.suffix == ".parquet" or not HUB_NAME.fullmatch(self.path):
            parts = _local(name, place, self.test)
        else:
            parts = _hub(name, self.path, self.test, root)
        schema = parts["train"][0].schema
        image = _choose(name, "image", self.image, schema, _images_in(schema), IMAGE_NAMES)
        label = _choose(name, "label", self.label, schema, _integers_in(schema), LABEL_NAMES)
        labels = {each: _labels(found, label) for each, found in parts.items()}
        classes = _classes(name, schema, label, np.concatenate(list(labels.values())))
        chosen = torch.from_numpy(labels[split])
        # Checked before the images, which take longer.
        found = checked(name, Split(torch.empty(len(chosen), 0), chosen, classes))
        # Both splits are looked at, so that they come out alike.
        everything = chain(_encoded(parts["train"], image), _encoded(parts["test"], image))
        wanted = layout(name, everything, self.size)
        images, y = list(_encoded(parts[split], image)), found.y
        if bool((y.diff() >= 0).all()):  # sorted by class: "the first N" must mean some of each
            order = torch.randperm(len(y), generator=generator("hf", split))
            images, y = [images[i] for i in order], y[order]
        return Split(decode(name, images, wanted), y, found.classes)


def _local(name: str, place: Path, test: str) -> dict[str, list[Part]]:
    """The parquet files of both splits: ``train-*.parquet`` or ``train/*.parquet``, anywhere."""
    parquet = _package(name, "pyarrow.parquet")
    if not place.exists():
        raise UserError(f"{name}: no such file or folder")
    if place.is_file() and place.suffix != ".parquet":
        raise UserError(f"{name}: expected a .parquet file or a folder of them")
    top = place if place.is_dir() else place.parent
    files = [
        file
        for file in sorted(top.rglob("*.parquet"))
        if not any(part.startswith(".") for part in file.relative_to(top).parts)
    ]
    if not files:
        raise UserError(f"{name}: no .parquet files in it")

    def part(file: Path) -> Part:
        def read(column: str) -> Any:
            with parquet.ParquetFile(file) as opened:
                return opened.read([column]).column(column)

        try:
            schema = parquet.read_schema(file)
        except Exception as error:  # Arrow has many kinds of errors for damaged files
            raise UserError(f"{file}: not a readable parquet file") from error
        return Part(str(file), file.parent, schema, read)

    def of(split: str) -> list[Part]:
        start = re.compile(rf"{re.escape(split)}[-.]")
        found = [file for file in files if start.match(file.name) or file.parent.name == split]
        folders = sorted({str(file.parent) for file in found})
        if len(folders) > 1:
            raise UserError(f"{name} holds several data sets; name one: {', '.join(folders)}")
        return [part(file) for file in found]

    return _both(name, of, test, [str(file.relative_to(top)) for file in files])


def _hub(name: str, path: str, test: str, root: Path) -> dict[str, list[Part]]:
    """Both splits of a data set on the hub, downloaded under ``root`` on first use."""
    package = _package(name, "datasets")
    try:
        package.disable_progress_bars()
        splits = package.load_dataset(path, cache_dir=str(root / "huggingface"))
        known = list(splits)
    except Exception as error:  # network, disk, and whatever the hub answers
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", 200)
        raise UserError(
            f"{name} is no folder here and could not be loaded from the hub "
            f"(no network, or no such name?): {reason}"
        ) from error

    def of(split: str) -> list[Part]:
        if split not in known:
            return []
        rows = splits[split]
        table = rows.with_format("arrow")[:]
        return [Part(f"{name}, {split}", root, rows.features.arrow_schema, table.column)]

    return _both(name, of, test, known)


def _both(
    name: str, of: Callable[[str], list[Part]], test: str, present: Sequence[str]
) -> dict[str, list[Part]]:
    found = {"train": of("train"), "test": of(test)}
    if not found["test"] and test == "test":
        found["test"] = of("validation")
    for split, parts in zip(("train", test), found.values(), strict=True):
        if not parts:
            raise UserError(
                f"{name} has no split {split!r}; it has {textwrap.shorten(', '.join(present), 200)}"
                " (test=NAME names the test split)"
            )
    return found


def _package(name: str, module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(f"{name} {EXTRA}") from error


def _images_in(schema: Any) -> list[str]:
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


def _labels(parts: Sequence[Part], column: str) -> NDArray[np.int64]:
    found = []
    for part in parts:
        values = part.column(column)
        if values.null_count:
            raise UserError(f"{part.where}: {values.null_count} rows without a label in {column!r}")
        found.append(values.to_numpy().astype(np.int64))
    return np.concatenate(found)


def _classes(name: str, schema: Any, label: str, labels: NDArray[np.int64]) -> tuple[str, ...]:
    """The names that Hugging Face wrote beside the table, or else the numbers."""
    written = (schema.metadata or {}).get(b"huggingface", b"{}")
    feature = json.loads(written).get("info", {}).get("features", {}).get(label, {})
    names = feature.get("names") if isinstance(feature, dict) else None
    if names:
        return tuple(map(str, names))
    seen = np.unique(labels)
    if len(seen) and not np.array_equal(seen, np.arange(len(seen))):
        raise UserError(
            f"{name}: labels in {label!r} must be 0..C-1 without a gap, "
            f"got {len(seen)} values in {seen[0]}..{seen[-1]}"
        )
    return tuple(map(str, range(len(seen))))


def _encoded(parts: Sequence[Part], column: str) -> Iterator[Encoded]:
    """The images in order, each with its file and row; one file is in memory at a time."""
    for part in parts:
        row = 0
        for chunk in part.column(column).chunks:
            for value in chunk.to_pylist():
                where = f"{part.where}, row {row}"
                yield Encoded(_content(value, part, where), where)
                row += 1


def _content(value: Any, part: Part, where: str) -> Path | bytes:
    content = value.get("bytes") if isinstance(value, dict) else value
    if isinstance(content, bytes):
        return content
    if isinstance(value, dict) and value.get("path"):
        return part.folder / str(value["path"])
    raise UserError(f"{where}: no image")
