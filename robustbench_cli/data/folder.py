"""A folder of images, one sub-folder a class: ``PATH/train/cat/1.png``, ``PATH/test/cat/2.png``.

The layout of ImageNet (Deng et al., 2009), https://doi.org/10.1109/CVPR.2009.5206848.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import PositiveInt

from robustbench_cli.data import DATASETS, Dataset, Split, SplitName
from robustbench_cli.data.decode import Encoded, checked, decode, layout
from robustbench_cli.errors import UserError
from robustbench_cli.noise import generator

ENDINGS = frozenset(
    (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
)


@DATASETS.register("folder", positional="path")
@dataclass(frozen=True, kw_only=True)
class Folder(Dataset):
    """Images in ``train`` and ``test``, in a folder for each class; colour unless all are grey.

    Classes are numbered in the order of their sorted names, and the images are shuffled once, in
    the same way for every run.  Files that are no images by their ending are passed over.
    ``--extra-data`` needs no ``test``.
    """

    path: str
    """The folder that holds ``train`` and ``test``."""
    size: PositiveInt | None = None
    """Scale and crop every image to this many pixels a side; None: they have one size already."""

    defaults: ClassVar[Mapping[str, Any]] = {"model": {"name": "preact-resnet-18"}}

    def load(self, split: SplitName, root: Path) -> Split:
        name = f"folder:{self.path}"
        top = Path(self.path).expanduser()
        if not top.is_dir():
            raise UserError(f"{name}: no such folder")
        there = ["train", "test"] if split == "test" or (top / "test").is_dir() else ["train"]
        files = {each: _files(name, top, each) for each in there}
        odd = sorted(files["train"].keys() ^ files[there[-1]].keys())
        if odd:
            has, lacks = ("train", "test") if odd[0] in files["train"] else ("test", "train")
            raise UserError(
                f"{name}: class {odd[0]!r} is in {has!r} and not in {lacks!r}; "
                "both must have the same classes"
            )
        classes = tuple(sorted(files["train"]))
        # Both splits are looked at, so that they come out alike.
        everything = chain.from_iterable(chain(*(files[each].values() for each in there)))
        wanted = layout(name, everything, self.size)
        images = [image for label in classes for image in files[split][label]]
        counts = torch.tensor([len(files[split][label]) for label in classes])
        labels = torch.repeat_interleave(torch.arange(len(classes)), counts)
        # Checked before the images, which take longer.
        found = checked(name, Split(torch.empty(len(labels), 0), labels, classes))
        # Read in the order of the classes; "the first N" must mean some of each.
        order = torch.randperm(len(found.y), generator=generator("folder", split))
        pixels = decode(name, [images[i] for i in order], wanted)
        return Split(pixels, found.y[order], found.classes)


def _files(name: str, top: Path, split: str) -> dict[str, list[Encoded]]:
    folder = top / split
    if not folder.is_dir():
        raise UserError(f"{name}: no folder {split!r} in it; expected {folder}/<class>/<image>")
    found = {}
    for each in sorted(folder.iterdir()):
        if not each.is_dir() or each.name.startswith("."):
            continue
        images = [
            Encoded(file, str(file))
            for file in sorted(each.iterdir())
            if file.suffix.lower() in ENDINGS and not file.name.startswith(".")
        ]
        if not images:
            raise UserError(f"{name}: no images in {each}; expected {', '.join(sorted(ENDINGS))}")
        found[each.name] = images
    if not found:
        raise UserError(f"{name}: no class folders in {folder}")
    return found
