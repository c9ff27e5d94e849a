"""Image data sets in Hugging Face's format (Lhoest et al., 2021), https://arxiv.org/abs/2109.02846.

Parquet files on disk, or a name on the hub with the optional package ``datasets``.
"""

import importlib
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import PositiveInt
from torch import Tensor

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import stream_generator
from robustbench_cli.data import DATASETS, SplitName
from robustbench_cli.data._columns import Part, Tables, images_in, labels_in
from robustbench_cli.data.decode import Encoded, decode, layout
from robustbench_cli.data.files import Files, UnreadSplit

HUB_NAME = re.compile(r"\w[\w.-]*(/[\w.-]+)?")
_SPLITS: tuple[SplitName, ...] = ("train", "test")
EXTRA = "needs the extra: pip install '.[hf]' where advbench is cloned"


@DATASETS.register("hf", positional="path")
@dataclass(frozen=True, kw_only=True)
class HuggingFace(Files):
    """A folder of parquet files, or a data set on the Hugging Face hub.

    ``augment`` starts at "none": for small photographs write ``hf:PATH,augment=crop-flip``.  Where
    no split is called "test", the one called "validation" is used.  ``--extra-data`` needs no test
    split, and no labels if a labeller assigns them or none are used; it counts as unlabelled where
    the label column cannot be told from others.  A label of -1 means that none is known.
    """

    path: str
    """A folder, a parquet file (its folder is meant), or a name on the hub."""
    image: str | None = None
    """Column of images; None: found by its content, ``img`` and ``image`` first."""
    label: str | None = None
    """Column of integer labels; None: found by its content, ``label`` first."""
    test: str = "test"
    """The name of the test split."""
    size: PositiveInt | None = None
    """Scale and crop every image to this many pixels per side; None: all have one size."""

    defaults: ClassVar[Mapping[str, Any]] = {"model": {"name": "preact-resnet-18"}}

    def find(self, split: SplitName, root: Path) -> UnreadSplit:
        name = f"hf:{self.path}"
        place = Path(self.path).expanduser()
        if place.exists() or place.suffix == ".parquet" or not HUB_NAME.fullmatch(self.path):
            tables = _local(name, place, self.test)
        else:
            tables = _hub(name, self.path, self.test, root)
        parts = tables.parts[split]
        if not parts:
            raise UserError(f"{name}: {tables.unfit}")
        column = images_in(name, tables, self.image)
        labels = labels_in(name, tables, split, self.label)
        y = torch.from_numpy(labels.y)
        # A set sorted by class is shuffled, so that the first N have every class.
        in_order = bool((y.diff() >= 0).all())
        order = torch.randperm(len(y), generator=stream_generator("hf", split))
        order = order if in_order else torch.arange(len(y))

        def images() -> Tensor:
            # The layout is that of both splits, so that their images have the same shape.
            everything = chain.from_iterable(_encoded(tables.parts[s], column) for s in _SPLITS)
            wanted, encoded = layout(name, everything, self.size), list(_encoded(parts, column))
            return decode(name, [encoded[i] for i in order], wanted)

        return UnreadSplit(
            name=name,
            y=y[order],
            classes=labels.classes,
            images=images,
            absent=labels.absent,
            unfit=labels.unfit or tables.unfit,
        )


def _local(name: str, place: Path, test: str) -> Tables:
    """Return the parquet files of both splits, ``train-*.parquet`` or ``train/*.parquet`` at any
    depth.

    Raises:
        UserError: there are none, one is damaged, or they belong to several data sets.
    """
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
            with parquet.ParquetFile(file) as opened:
                schema, rows = opened.schema_arrow, opened.metadata.num_rows
        except Exception as error:  # Arrow raises errors of many types for damaged files
            raise UserError(f"{file}: not a readable parquet file") from error
        return Part(str(file), file.parent, top, schema, rows, read)

    def of(split: str) -> list[Part]:
        start = re.compile(rf"{re.escape(split)}[-.]")
        found = [file for file in files if start.match(file.name) or file.parent.name == split]
        folders = sorted({str(file.parent) for file in found})
        if len(folders) > 1:
            raise UserError(f"{name} holds several data sets; name one: {', '.join(folders)}")
        return [part(file) for file in found]

    return _both(name, of, test, [str(file.relative_to(top)) for file in files])


def _hub(name: str, path: str, test: str, root: Path) -> Tables:
    """Return both splits of a data set on the hub, downloaded under ``root`` on first use.

    Raises:
        UserError: the package ``datasets`` is missing, or the set cannot be loaded.
    """
    package = _package(name, "datasets")
    try:
        package.disable_progress_bars()
        splits = package.load_dataset(path, cache_dir=str(root / "huggingface"))
        known = list(splits)
    except Exception as error:  # errors of network, disk or the hub, of many types
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
        schema = rows.features.arrow_schema
        return [Part(f"{name}, {split}", root, root, schema, table.num_rows, table.column)]

    return _both(name, of, test, known)


def _both(name: str, of: Callable[[str], list[Part]], test: str, present: Sequence[str]) -> Tables:
    """Return the tables of the training split and of the test split or its substitute."""

    def lacks(split: str) -> str:
        known = textwrap.shorten(", ".join(present), 200)
        return f"no split {split!r}; it has {known} (test=NAME names the test split)"

    train, tests = of("train"), of(test)
    if not train:
        raise UserError(f"{name}: {lacks('train')}")
    if not tests and test == "test":
        tests = of("validation")
    return Tables({"train": train, "test": tests}, None if tests else lacks(test))


def _package(name: str, module: str) -> Any:
    """Import an optional package; raise ``UserError`` where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(f"{name} {EXTRA}") from error


def _encoded(parts: Sequence[Part], column: str) -> Iterator[Encoded]:
    """Yield the images in order, each named by file and row; one file is in memory at a time."""
    for part in parts:
        row = 0
        for chunk in part.column(column).chunks:
            for value in chunk.to_pylist():
                where = f"{part.where}, row {row}"
                yield Encoded(_content(value, part, where), where)
                row += 1


def _content(value: Any, part: Part, where: str) -> Path | bytes:
    """Return the image of one table cell: its bytes, or the path of its file.

    Raises:
        UserError: there is no image, or its path leaves the folder of the data set.
    """
    content = value.get("bytes") if isinstance(value, dict) else value
    if isinstance(content, bytes):
        return content
    if isinstance(value, dict) and value.get("path"):
        path = (part.folder / str(value["path"])).resolve()
        if not path.is_relative_to(part.top.resolve()):
            raise UserError(
                f"{where}: its image {str(value['path'])!r} lies outside {str(part.top)!r}"
            )
        return path
    raise UserError(f"{where}: no image")
