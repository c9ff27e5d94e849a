"""Image data sets in Hugging Face's format (Lhoest et al., 2021), https://arxiv.org/abs/2109.02846.

Parquet files on disk, or a name on the hub with the optional package ``datasets``.
"""

import hashlib
import re
import secrets
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import PositiveInt

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import stream_generator
from robustbench_cli.data import DATASETS, SplitName
from robustbench_cli.data._columns import Part, Tables, images_in, labels_in
from robustbench_cli.data._table_images import TableImages, encoded
from robustbench_cli.data._tables import both_splits, local_tables, optional_package
from robustbench_cli.data.encoded import EncodedImages
from robustbench_cli.data.files import Files, UnreadSplit

HUB_NAME = re.compile(r"\w[\w.-]*(/[\w.-]+)?")


@DATASETS.register("hf", positional="path")
@dataclass(frozen=True, kw_only=True)
class HuggingFace(Files):
    """A folder of parquet files, one that ``save_to_disk`` wrote, or a data set on the Hugging
    Face hub.

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
    """Column of labels, integers or texts; None: found by its content, ``label`` first."""
    test: str = "test"
    """The name of the test split."""
    size: PositiveInt | None = None
    """Scale and crop every image to this many pixels per side; None: all have one size."""

    defaults: ClassVar[Mapping[str, Any]] = {"model": {"name": "preact-resnet-18"}}

    def at_hand(self, root: Path) -> bool:
        # A name on the hub is asked for there, even if a copy was kept.
        place = Path(self.path).expanduser()
        return place.exists() or place.suffix == ".parquet" or not HUB_NAME.fullmatch(self.path)

    def find(self, split: SplitName, root: Path) -> UnreadSplit:
        name = f"hf:{self.path}"
        if self.at_hand(root):
            tables = local_tables(name, Path(self.path).expanduser(), self.test)
        else:
            tables = _hub(name, self.path, self.test, root)
        parts = tables.parts[split]
        if not parts:
            raise UserError(f"{name}: {tables.unfit if split == 'test' else tables.no_train}")
        column = images_in(name, tables, self.image)
        labels = labels_in(name, tables, split, self.label)
        y = torch.from_numpy(labels.y)
        # A set sorted by class is shuffled, so that the first N have every class.
        in_order = bool((y.diff() >= 0).all())
        order = torch.randperm(len(y), generator=stream_generator("hf", split))
        order = order if in_order else torch.arange(len(y))
        both = [parts, *(each for of, each in tables.parts.items() if of != split)]
        cells = TableImages(parts, column, order.numpy())
        state = [[part.state for part in each] for each in both]
        images = EncodedImages(
            name=name,
            items=cells,
            # The layout is that of both splits, so that their images have the same shape.
            everything=lambda: chain.from_iterable(encoded(each, column) for each in both),
            size=self.size,
            state=repr((split, column, self.label, state)),
            beside=True,
        )
        alone = "it has one split only, which can be evaluated or be --extra-data, not trained on"
        return UnreadSplit(
            name=name,
            y=y[order],
            classes=labels.classes,
            images=images,
            named=cells.names,
            notes=tuple(filter(None, [tables.note if split == "test" else None, labels.note])),
            absent=labels.absent,
            unfit=labels.unfit
            or (tables.unfit if split == "train" else None)
            or (alone if tables.alone and split == "train" else None),
        )


def _hub(name: str, path: str, test: str, root: Path) -> Tables:
    """Return both splits of a data set on the hub, downloaded under ``root`` on first use.

    Raises:
        UserError: the package ``datasets`` is missing, or the set cannot be loaded.
    """
    package = optional_package(name, "datasets")
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
        # The package's own hash of a set; without one nothing is found in the cache again.
        own = getattr(rows, "_fingerprint", None) or secrets.token_hex(8)
        state = hashlib.sha256(f"{path} {split} {own}".encode()).hexdigest()

        def batches(column: str) -> Iterator[Any]:
            return iter(table.column(column).chunks)

        where = f"{name}, {split}"
        return [Part(where, root, root, schema, table.num_rows, table.column, batches, state)]

    return both_splits(name, of, test, known)
