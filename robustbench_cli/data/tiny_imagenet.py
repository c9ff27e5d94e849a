"""Tiny ImageNet, 64x64 images of 200 classes, as its archive unpacks (Le and Yang, 2015),
http://cs231n.stanford.edu/reports/2015/pdfs/yle_project.pdf.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from robustbench_cli.core.errors import UserError
from robustbench_cli.data import DATASETS, SplitName
from robustbench_cli.data._pictures import (
    Listing,
    Pictures,
    by_class,
    has_classes,
    known_classes,
    wordnet_titles,
)
from robustbench_cli.data.files import Files, UnreadSplit


@DATASETS.register("tiny-imagenet", positional="path")
@dataclass(frozen=True, kw_only=True)
class TinyImageNet(Files):
    """``tiny-imagenet:PATH``, where PATH holds ``train/n01443537/images`` and ``val``.

    The test split is ``val``, labelled by ``val_annotations.txt``, because nobody has the labels of
    ``test``.  Classes are numbered in the order of their WordNet ids and named by ``words.txt``.
    To train, add ``augment=crop-flip``.
    """

    path: str
    """The folder, ``tiny-imagenet-200``, or the one that it lies in."""

    mean: ClassVar[tuple[float, ...] | None] = (0.4802, 0.4481, 0.3975)
    std: ClassVar[tuple[float, ...] | None] = (0.2770, 0.2691, 0.2821)
    defaults: ClassVar[Mapping[str, Any]] = {
        "model": {"name": "preact-resnet-18"},
        "train": {"epochs": 100, "lr": 0.1},
    }

    def find(self, split: SplitName, root: Path) -> UnreadSplit:
        name, given = f"tiny-imagenet:{self.path}", Path(self.path).expanduser()
        top = given / "tiny-imagenet-200" if (given / "tiny-imagenet-200").is_dir() else given
        folder = top / ("train" if split == "train" else "val")
        if not folder.is_dir():
            raise UserError(f"{name}: no folder {folder.name!r} in it; expected {folder}/...")
        table = folder / "val_annotations.txt"
        listing = _annotated(name, table) if table.is_file() else by_class(name, folder)
        ids = top / "wnids.txt"
        known = ids.read_text("utf-8").split() if ids.is_file() else []
        folders = [each.name for each in (top / "train").glob("n*")]
        return Pictures(
            name=name,
            top=top,
            listings={split: listing},
            classes=known_classes(listing, known, folders),
            key="tiny-imagenet",
            titles=wordnet_titles(top),
        ).unread(split)


def _annotated(name: str, table: Path) -> Listing:
    """Return the images of ``val`` by class, from lines of file name, WordNet id and box.

    Raises:
        UserError: a line has no label, or its file is missing.
    """
    folder = table.parent
    if has_classes(folder) and not (folder / "images").is_dir():  # somebody has sorted them
        return by_class(name, folder)
    found = defaultdict(list)
    for number, line in enumerate(table.read_text("utf-8").splitlines(), 1):
        file, _, rest = line.partition("\t")
        label = rest.split("\t")[0].strip()
        place = folder / "images" / Path(file).name
        if not label or not place.is_file():
            raise UserError(f"{name}: {table}, line {number}: no label, or no file {place}")
        found[label].append(str(place))
    return found
