"""ImageNet (ILSVRC 2012) as its archives unpack (Russakovsky et al., 2015),
https://arxiv.org/abs/1409.0575.
"""

import csv
import importlib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import PositiveInt

from robustbench_cli.core.errors import UserError
from robustbench_cli.data import DATASETS, SplitName
from robustbench_cli.data._pictures import (
    Listing,
    Pictures,
    by_class,
    has_classes,
    image_files,
    known_classes,
    wordnet_titles,
)
from robustbench_cli.data.files import Files, UnreadSplit

_INSIDE = ("", "ILSVRC/Data/CLS-LOC", "Data/CLS-LOC")
"""Folders that ``train`` and ``val`` lie in, the last two as Kaggle packs them."""
_TRUTH = "data/ILSVRC2012_validation_ground_truth.txt"
_META = "data/meta.mat"


@DATASETS.register("imagenet", positional="path")
@dataclass(frozen=True, kw_only=True)
class ImageNet(Files):
    """``imagenet:PATH``, where PATH holds ``train/n01440764/*.JPEG`` and ``val``.

    The images of ``val`` lie in class folders, or all in one; then their labels come from the
    development kit (``ILSVRC2012_devkit_t12``) or from ``LOC_val_solution.csv``.  Classes are
    numbered as published networks number them, in the order of their WordNet ids, which is not
    the order of the kit.  ``val`` is the test split.  As in the usual evaluation the shorter side
    is scaled to ``scale`` pixels, bilinearly, and the middle cut out.
    """

    path: str
    """The folder."""
    size: PositiveInt = 224
    """Pixels per side."""
    scale: PositiveInt = 256
    """Pixels of the shorter side before the middle is cut out."""

    mean: ClassVar[tuple[float, ...] | None] = (0.485, 0.456, 0.406)
    std: ClassVar[tuple[float, ...] | None] = (0.229, 0.224, 0.225)
    eps: ClassVar[Mapping[str, float]] = {"Linf": 4 / 255, "L2": 3.0, "L1": 75.0}
    defaults: ClassVar[Mapping[str, Any]] = {"model": {"name": "preact-resnet-18"}}

    def find(self, split: SplitName, root: Path) -> UnreadSplit:
        name, top = f"imagenet:{self.path}", Path(self.path).expanduser()
        folder = "train" if split == "train" else "val"
        places = [top / inside / folder for inside in _INSIDE]
        place = next((each for each in places if each.is_dir()), None)
        if place is None:
            raise UserError(f"{name}: no folder {folder!r} in it; expected {places[0]}/...")
        if self.scale < self.size:
            raise UserError(f"{name}: scale={self.scale} is below size={self.size}")
        flat = split == "test" and not has_classes(place)
        listing = _validation(name, top, place) if flat else by_class(name, place)
        kit, read = _kit_titles(top), wordnet_titles(top)
        folders = [each.name for each in places[0].with_name("train").glob("n*")]
        return Pictures(
            name=name,
            top=top,
            listings={split: listing},
            key="imagenet",
            titles=read | kit,
            classes=known_classes(listing, kit, read, folders),
            size=self.size,
            scale=self.scale,
        ).unread(split)


def _validation(name: str, top: Path, place: Path) -> Listing:
    """Return the validation images of one folder by WordNet id.

    Raises:
        UserError: nothing says what their labels are, or there are not as many.
    """
    files = image_files(place)
    kit, table = _kit(top), top / "LOC_val_solution.csv"
    if kit is not None:
        ids = [each["wnid"] for each in _synsets(name, kit)]
        numbers = (kit / _TRUTH).read_text().split()
        if len(numbers) != len(files):
            raise UserError(f"{name}: {len(files)} images in {place}, {len(numbers)} labels in kit")
        # The kit numbers the images in the order of their names, and the classes from 1.
        labels = [ids[int(number) - 1] for number in numbers]
    elif table.is_file():
        with table.open(newline="") as opened:
            known = {row["ImageId"]: row["PredictionString"] for row in csv.DictReader(opened)}
        stems = [Path(file).stem for file in files]
        if lost := [stem for stem in stems if not known.get(stem)]:
            raise UserError(f"{name}: {table} says nothing of {lost[0]}")
        labels = [known[stem].split()[0] for stem in stems]
    else:
        raise UserError(
            f"{name}: {place} has no class folders, and no labels are known: unpack "
            f"ILSVRC2012_devkit_t12.tar.gz in {top}, or put LOC_val_solution.csv there"
        )
    found = defaultdict(list)
    for file, label in zip(files, labels, strict=True):
        found[label].append(file)
    return found


def _kit(top: Path) -> Path | None:
    """Return the folder of the development kit, if it is there."""
    places = (top / "ILSVRC2012_devkit_t12", top)
    return next((each for each in places if (each / _TRUTH).is_file()), None)


def _synsets(name: str, kit: Path) -> list[dict[str, str]]:
    """Return ``wnid`` and ``words`` of the classes, in the kit's order.

    Raises:
        UserError: the kit's table is missing or damaged.
    """
    try:
        # Imported here because only an unlabelled validation folder needs it.
        rows = importlib.import_module("scipy.io").loadmat(kit / _META, squeeze_me=True)["synsets"]
        leaves = [row for row in rows if int(row["num_children"]) == 0]
        leaves.sort(key=lambda row: int(row["ILSVRC2012_ID"]))
        return [{"wnid": str(row["WNID"]), "words": str(row["words"])} for row in leaves]
    except Exception as error:  # a damaged file raises errors of many types
        raise UserError(f"{name}: {kit / _META} is missing or damaged") from error


def _kit_titles(top: Path) -> dict[str, str]:
    """Return the first word for each WordNet id that the development kit knows."""
    kit = _kit(top)
    if kit is None or not (kit / _META).is_file():
        return {}
    return {
        each["wnid"]: each["words"].partition(",")[0].strip() for each in _synsets("imagenet", kit)
    }
