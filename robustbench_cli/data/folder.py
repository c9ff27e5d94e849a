"""A folder of images with one sub-folder per class: ``PATH/train/cat/1.png``,
``PATH/test/cat/2.png``.

The layout of ImageNet (Deng et al., 2009), https://doi.org/10.1109/CVPR.2009.5206848.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain, permutations
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import PositiveInt
from torch import Tensor

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import stream_generator
from robustbench_cli.data import DATASETS, UNLABELLED, SplitName
from robustbench_cli.data.decode import Encoded, decode, layout
from robustbench_cli.data.files import Files, UnreadSplit

_ENDINGS = frozenset(
    (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
)
LOOSE = ""
"""Key, in place of a class name, of images that lie directly in the split's folder."""


@DATASETS.register("folder", positional="path")
@dataclass(frozen=True, kw_only=True)
class Folder(Files):
    """Images in ``train`` and ``test``, in a folder for each class; colour unless all are grey.

    Classes are numbered in the order of their sorted names, and the images are shuffled once, in
    the same way for every run.  Files without the ending of an image format are ignored.
    ``--extra-data`` needs no ``test``, and no class folders if a labeller assigns the labels or
    none are used: images may lie in ``train`` itself.
    """

    path: str
    """Folder that contains ``train`` and ``test``."""
    size: PositiveInt | None = None
    """Scale and crop every image to this many pixels per side; None: all have one size."""

    defaults: ClassVar[Mapping[str, Any]] = {"model": {"name": "preact-resnet-18"}}

    def find(self, split: SplitName, root: Path) -> UnreadSplit:
        name = f"folder:{self.path}"
        top = Path(self.path).expanduser()
        if not top.is_dir():
            raise UserError(f"{name}: no such folder")
        there = ["train", "test"] if split == "test" or (top / "test").is_dir() else ["train"]
        files = {each: _files(name, top, each) for each in there}
        names, own = sorted(files[split]), files[split]
        # The files are sorted by class: shuffle them, so that the first N have every class.
        ordered = [image for each in names for image in own[each]]
        order = torch.randperm(len(ordered), generator=stream_generator("folder", split))
        numbers = torch.tensor([UNLABELLED]) if LOOSE in own else torch.arange(len(names))
        labels = torch.repeat_interleave(numbers, torch.tensor([len(own[each]) for each in names]))

        def images() -> Tensor:
            # The layout is that of both splits, so that their images have the same shape.
            everything = chain.from_iterable(chain(*(files[each].values() for each in there)))
            return decode(name, [ordered[i] for i in order], layout(name, everything, self.size))

        return UnreadSplit(
            name=name,
            y=labels[order],
            classes=() if LOOSE in own else tuple(names),
            images=images,
            absent=f"no class folders in {top / split}" if LOOSE in own else None,
            unfit=_odd(files),
        )


def _odd(files: Mapping[str, Mapping[str, list[Encoded]]]) -> str | None:
    """Return, in words, a class that only one of the splits has; None where they agree."""
    for has, lacks in permutations(files, 2):
        odd = sorted(files[has].keys() - files[lacks].keys() - {LOOSE})
        if odd:
            return (
                f"class {odd[0]!r} is in {has!r} and not in {lacks!r}; "
                "both must have the same classes"
            )
    return None


def _files(name: str, top: Path, split: str) -> dict[str, list[Encoded]]:
    """Return the images of a split by class; all under ``LOOSE`` where there are no class folders.

    Raises:
        UserError: the split's folder, or a class's images, are missing.
    """
    folder = top / split
    if not folder.is_dir():
        raise UserError(f"{name}: no folder {split!r} in it; expected {folder}/<class>/<image>")
    found = {}
    for each in sorted(folder.iterdir()):
        if not each.is_dir() or each.name.startswith("."):
            continue
        found[each.name] = _images(each)
        if not found[each.name]:
            raise UserError(f"{name}: no images in {each}; expected {', '.join(sorted(_ENDINGS))}")
    loose = [] if found else _images(folder)
    if not found and not loose:
        raise UserError(f"{name}: no class folders in {folder}, and no images")
    return found or {LOOSE: loose}


def _images(folder: Path) -> list[Encoded]:
    """Return the image files directly inside a folder, sorted by name."""
    return [
        Encoded(file, str(file))
        for file in sorted(folder.iterdir())
        if file.suffix.lower() in _ENDINGS and not file.name.startswith(".")
    ]
