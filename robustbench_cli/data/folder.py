"""A folder of images with one sub-folder per class: ``PATH/train/cat/1.png``,
``PATH/test/cat/2.png``.

The layout of ImageNet (Deng et al., 2009), https://doi.org/10.1109/CVPR.2009.5206848.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import PositiveInt

from robustbench_cli.core.errors import UserError
from robustbench_cli.data import DATASETS, SplitName
from robustbench_cli.data._pictures import Pictures, by_class, has_classes, wordnet_titles
from robustbench_cli.data.files import Files, UnreadSplit

TEST_FOLDERS = ("test", "val", "valid", "validation")
"""Names of the folder of the test split; the first one with class folders counts."""


@DATASETS.register("folder", positional="path")
@dataclass(frozen=True, kw_only=True)
class Folder(Files):
    """Images in ``train`` and ``test``, in a folder for each class; colour unless all are grey.

    ``val``, ``valid`` or ``validation`` can stand in for ``test``, and a class's images may lie in
    ``images`` inside its folder.  Without ``train`` the set can be evaluated; so can one whose
    class folders lie directly in it.  Classes are numbered in the order of their sorted names, and
    the images are shuffled once, in the same way for every run.  Files without the ending of an
    image format are ignored.  Folders named by WordNet ids get readable names from ``words.txt`` or
    ``LOC_synset_mapping.txt``.  ``--extra-data`` needs no ``test``, and no class folders if a
    labeller assigns the labels or none are used: images may lie in ``train`` itself.
    """

    path: str
    """Folder that contains ``train`` and ``test``, or the class folders."""
    size: PositiveInt | None = None
    """Scale and crop every image to this many pixels per side; None: all have one size."""

    defaults: ClassVar[Mapping[str, Any]] = {"model": {"name": "preact-resnet-18"}}

    def find(self, split: SplitName, root: Path) -> UnreadSplit:
        name = f"folder:{self.path}"
        top = Path(self.path).expanduser()
        if not top.is_dir():
            raise UserError(f"{name}: no such folder")
        places = split_folders(top)
        flat = not places and has_classes(top)
        if flat:
            places = {split: top}
        if split not in places:
            stand_ins = f" (or {', '.join(TEST_FOLDERS[1:])})" if split == "test" else ""
            raise UserError(
                f"{name}: no folder {split!r} in it; expected "
                f"{top / split}/<class>/<image>{stand_ins}"
            )
        taken = places["test"].name if "test" in places else "test"
        stands_in = split == "test" and taken != "test" and not flat
        return Pictures(
            name=name,
            top=top,
            listings={each: by_class(name, folder) for each, folder in places.items()},
            key="folder",
            places={each: "" if flat else folder.name for each, folder in places.items()},
            titles=wordnet_titles(top),
            size=self.size,
            notes=(f"the test images are those in {taken!r}",) * stands_in,
            unfit=f"class folders without 'train' and 'test' around them can be evaluated or be "
            f"--extra-data; to train, move them to {top}/train and some images of each to "
            f"{top}/test"
            if flat and split == "train"
            else None,
        ).unread(split)


def split_folders(top: Path) -> dict[SplitName, Path]:
    """Return the folders of the splits that there are, by split, whatever their case."""
    there = {each.name.lower(): each for each in sorted(top.iterdir()) if each.is_dir()}
    tests = [there[name] for name in TEST_FOLDERS if name in there]
    chosen = next((each for each in tests if has_classes(each)), tests[0] if tests else None)
    found: dict[SplitName, Path] = {"train": there["train"]} if "train" in there else {}
    return found | ({"test": chosen} if chosen else {})
