"""Image files that are listed by split and class, assembled into a split of a data set."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, permutations
from pathlib import Path
from typing import overload

import torch
from torch import Tensor

from robustbench_cli.core.cache_folder import file_stamp
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import stream_generator
from robustbench_cli.data import UNLABELLED, SplitName
from robustbench_cli.data.decode import Encoded
from robustbench_cli.data.encoded import EncodedImages
from robustbench_cli.data.files import UnreadSplit

ENDINGS = frozenset(
    (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
)
LOOSE = ""
"""Key, in place of a class name, of images that belong to no class folder."""
Listing = Mapping[str, Sequence[str]]
"""The paths of the image files of a split by the name of their class, as text, which is small."""


class PictureFiles(Sequence[Encoded]):
    """Image files in an order; only their paths are kept."""

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, index: int) -> Encoded: ...
    @overload
    def __getitem__(self, index: slice) -> "PictureFiles": ...
    def __getitem__(self, index: int | slice) -> "Encoded | PictureFiles":
        if isinstance(index, slice):
            return PictureFiles(self.paths[index])
        return Encoded(Path(self.paths[index]), self.paths[index])


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """The image files of a data set, and what is known of its classes."""

    name: str
    """Name of the data set in messages."""
    top: Path
    """The folder that names of images are relative to."""
    listings: Mapping[SplitName, Listing]
    """The files of each split that is looked at."""
    key: str
    """Key of the order in which images sorted by class are shuffled."""
    places: Mapping[SplitName, str] = field(default_factory=dict)
    """Names of the splits in messages, where they are other ones."""
    titles: Mapping[str, str] = field(default_factory=dict)
    """Names that people read of classes whose folders have others."""
    classes: Sequence[str] = ()
    """Names of all classes in their order, where a split may lack some; empty: those of the files,
    which must be the same in both splits."""
    size: int | None = None
    """Scale and crop every image to this many pixels per side; None: all have one size."""
    scale: int | None = None
    """Scale the shorter side to this before the crop; None: to ``size``."""
    notes: tuple[str, ...] = ()
    unfit: str | None = None
    """Reason why a split cannot be a data set's, though it has all labels."""

    def unread(self, split: SplitName) -> UnreadSplit:
        """Return a split, shuffled in the same way for every run.

        The files are sorted by class: shuffled, the first N have every class.
        """
        own = self.listings[split]
        names = self.classes or sorted(own)
        ordered = [file for each in names for file in own.get(each, ())]
        order = torch.randperm(len(ordered), generator=stream_generator(self.key, split))
        paths = [ordered[i] for i in order.tolist()]
        loose = LOOSE in own
        images = EncodedImages(
            name=self.name,
            items=PictureFiles(paths),
            # The layout is that of both splits, so that their images have the same shape.
            everything=lambda: self._everything(split),
            size=self.size,
            scale=self.scale,
            state=self._state(split, paths),
        )
        start = str(self.top)
        return UnreadSplit(
            name=self.name,
            y=_labels(own, names, loose)[order],
            classes=() if loose else tuple(_titled(names, self.titles)),
            images=images,
            named=lambda: [os.path.relpath(path, start) for path in paths],
            notes=self.notes,
            absent=f"no class folders in {self.top / self._place(split)}" if loose else None,
            unfit=self._odd() or self.unfit,
        )

    def _place(self, split: SplitName) -> str:
        return self.places.get(split, split)

    def _everything(self, first: SplitName) -> Iterator[Encoded]:
        splits = [first, *(each for each in self.listings if each != first)]
        files = chain.from_iterable(
            chain.from_iterable(self.listings[each].values()) for each in splits
        )
        return (Encoded(Path(file), file) for file in files)

    def _state(self, split: SplitName, paths: Sequence[str]) -> str:
        """Return a hash of a split's order, and the sizes and times of change of all files.

        Other labels of the same files, as in a table that was corrected, give another order.
        """
        found = hashlib.sha256(f"{split} {Path.cwd()}".encode())
        found.update(os.fsencode("\0".join(paths)))
        for each in self.listings.values():
            for file in chain.from_iterable(each.values()):
                try:
                    stamp = file_stamp(file)
                except OSError as error:
                    raise UserError(f"{file}: {error.strerror}") from error
                line = f"{file}\0{stamp}\n"
                found.update(os.fsencode(line))
        return found.hexdigest()

    def _odd(self) -> str | None:
        """Return, in words, a class that only one of the splits has; None where they agree."""
        for has, lacks in permutations(() if self.classes else self.listings, 2):
            odd = sorted(self.listings[has].keys() - self.listings[lacks].keys() - {LOOSE})
            if odd:
                return (
                    f"class {odd[0]!r} is in {self._place(has)!r} and not in "
                    f"{self._place(lacks)!r}; both must have the same classes"
                )
        return None


def _labels(own: Listing, names: Sequence[str], loose: bool) -> Tensor:
    """Return the labels (N) of the files in the order of their sorted classes."""
    numbers = torch.tensor([UNLABELLED]) if loose else torch.arange(len(names))
    return torch.repeat_interleave(
        numbers, torch.tensor([len(own.get(each, ())) for each in names])
    )


def _titled(names: Sequence[str], titles: Mapping[str, str]) -> list[str]:
    """Return the names that people read; where two classes have one title, both keep their own."""
    read = [titles.get(name, name) for name in names]
    return [
        f"{title} ({name})" if title != name and read.count(title) > 1 else title
        for name, title in zip(names, read, strict=True)
    ]


def image_files(folder: Path) -> list[str]:
    """Return the paths of the image files directly inside a folder, sorted by name."""
    with os.scandir(folder) as entries:
        names = [each.name for each in entries]
    return [
        f"{folder}/{name}"
        for name in sorted(names)
        if os.path.splitext(name)[1].lower() in ENDINGS and not name.startswith(".")  # noqa: PTH122
    ]


def by_class(name: str, folder: Path) -> dict[str, list[str]]:
    """Return the images of a split by class; all under ``LOOSE`` where there are no class folders.

    A class's images lie in its folder, or in ``images`` inside it.

    Raises:
        UserError: a class, or the split, has no images.
    """
    found = {}
    for each in sorted(folder.iterdir()):
        if not each.is_dir() or each.name.startswith("."):
            continue
        inside = each / "images"
        found[each.name] = image_files(each) or (image_files(inside) if inside.is_dir() else [])
        if not found[each.name]:
            raise UserError(f"{name}: no images in {each}; expected {', '.join(sorted(ENDINGS))}")
    loose = [] if found else image_files(folder)
    if not found and not loose:
        raise UserError(f"{name}: no class folders in {folder}, and no images")
    return found or {LOOSE: loose}


def known_classes(own: Listing, *known: Iterable[str]) -> list[str]:
    """Return the classes, sorted, of the first of ``known`` that has all of ``own``, else ``own``.

    A copy that lacks the images of a class still numbers the others as the whole set does.
    """
    every = (sorted(each) for each in known)
    return next((names for names in every if {*own} <= {*names}), sorted(own))


def has_classes(folder: Path) -> bool:
    """Return True if there are folders with images in a folder."""
    inner = (each for each in folder.iterdir() if each.is_dir() and each.name[0] != ".")
    for each in inner:
        if image_files(each) or ((each / "images").is_dir() and image_files(each / "images")):
            return True
    return False


WORDNET_NAMES = ("words.txt", "LOC_synset_mapping.txt", "synset_words.txt", "wnids_to_names.txt")
"""Files that say in words what WordNet ids mean, a line each."""


def wordnet_titles(top: Path) -> dict[str, str]:
    """Return the first name of each WordNet id that a file in the folder explains; {} without one.

    WordNet (Miller, 1995), https://doi.org/10.1145/219717.219748.
    """
    for path in (top / name for name in WORDNET_NAMES):
        if path.is_file():
            pairs = (line.split(maxsplit=1) for line in path.read_text("utf-8").splitlines())
            split = (pair for pair in pairs if len(pair) == 2)
            return {wnid: text.partition(",")[0].strip() for wnid, text in split}
    return {}
