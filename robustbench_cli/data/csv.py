"""A table of image files and their labels, as spreadsheets and scripts write it.

Comma-separated values (Shafranovich, 2005), https://www.rfc-editor.org/rfc/rfc4180.
"""

import csv
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import PositiveInt

from robustbench_cli.core.errors import UserError
from robustbench_cli.data import DATASETS, SplitName
from robustbench_cli.data._pictures import Pictures
from robustbench_cli.data.files import Files, UnreadSplit

FILES = ("path", "file", "filename", "image", "img", "image_path", "filepath")
CLASSES = ("label", "class", "target", "y", "category")
SPLITS = ("split", "set", "subset")
"""Accepted headings, in any case."""
_TRAINS = ("train", "training")
"""Names of the training split, in any case."""
_TESTS = ("test", "val", "valid", "validation")
"""Names of the test split, in any case; the first one that there is counts."""


@DATASETS.register("csv", positional="path")
@dataclass(frozen=True, kw_only=True)
class Csv(Files):
    """A file with a line ``path,label`` for each image; paths are relative to the file's folder.

    A heading may name the columns (``path``, ``label``, ``split``); without one they stand in this
    order.  Labels are texts or numbers; classes are numbered in the order of their sorted names,
    numbers by size.  The test split is in another file (``test=FILE``), or the lines whose
    ``split`` is test, or else val; the others say train, and any other word is an error.  A table
    of one split can be evaluated, and be ``--extra-data``.
    """

    path: str
    """The file."""
    test: str | None = None
    """The file of the test split; None: the lines whose ``split`` says so, else all."""
    size: PositiveInt | None = None
    """Scale and crop every image to this many pixels per side; None: all have one size."""

    defaults: ClassVar[Mapping[str, Any]] = {"model": {"name": "preact-resnet-18"}}

    def find(self, split: SplitName, root: Path) -> UnreadSplit:
        name, file = f"csv:{self.path}", Path(self.path).expanduser()
        found, left_out = _read(name, file)
        if self.test is not None:
            tests, _ = _read(name, Path(self.test).expanduser())
            if len(tests) > 1:
                raise UserError(f"{name}: {self.test} has a training split, too: lines of one only")
            (found["test"],) = tests.values()
        one = len(found) == 1
        if one:
            found = dict.fromkeys((split,), next(iter(found.values())))
        texts = sorted({label for lines in found.values() for _, label in lines}, key=_by_size)
        # Names sort in the order of the classes, which for numbers is that of their size.
        width = len(str(len(texts)))
        keys = {text: f"{place:0{width}}" for place, text in enumerate(texts)}
        listings: dict[SplitName, Mapping[str, Sequence[str]]] = {}
        for each, lines in found.items():
            listing = defaultdict(list)
            for path, label in lines:
                listing[keys[label]].append(path)
            listings[each] = listing
        return Pictures(
            name=name,
            top=file.parent,
            listings=listings,
            key="csv",
            titles={key: text for text, key in keys.items()},
            classes=sorted(keys.values()),
            size=self.size,
            notes=tuple(
                f"lines of split {each!r} are left out: there are others of 'test'"
                for each in left_out
            ),
            unfit=f"a table of one split can be evaluated or be --extra-data; to train, add a "
            f"column 'split' or {name},test=FILE"
            if one and split == "train"
            else None,
        ).unread(split)


def _by_size(text: str) -> tuple[int, float, str]:
    return (0, int(text), text) if text.lstrip("-").isdecimal() else (1, 0, text)


def _read(name: str, file: Path) -> tuple[dict[SplitName, list[tuple[str, str]]], list[str]]:
    """Return the files and labels of a table, by split, and the names of splits that are left out.

    Raises:
        UserError: the table is absent, empty or no text, or a line of it lacks a path or a label,
            or names no split.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened:
            lines = [line for line in _numbered(opened) if any(map(str.strip, line[1]))]
    except OSError as error:
        raise UserError(f"{name}: {file}: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{name}: {file} is no table of text") from error
    if not lines:
        raise UserError(f"{name}: {file} is empty")
    heads = [cell.strip().lower() for cell in lines[0][1]]
    columns = [_column(heads, names) for names in (FILES, CLASSES, SPLITS)]
    headed = columns[0] is not None
    if headed and columns[1] is None:
        raise UserError(f"{name}: no column of labels ({', '.join(CLASSES)}); it has {heads}")
    path_at, label_at, split_at = columns if headed else (0, 1, 2 if len(heads) > 2 else None)
    named: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for number, line in lines[headed:]:
        place_in = f"{name}: line {number} of {file}"
        path, label, split = (
            line[at].strip() if at is not None and at < len(line) else ""
            for at in (path_at, label_at, split_at)
        )
        if not (path and label):
            raise UserError(f"{place_in} has no path, or no label")
        place = file.parent / Path(path).expanduser()
        if not place.is_file():
            raise UserError(f"{place_in}: no file {str(place)!r}")
        of = "train" if split_at is None else _split_named(place_in, split, headed)
        named[of].append((str(place), label))
    if not named:
        raise UserError(f"{name}: {file} has a heading and no lines")
    test, *others = [each for each in _TESTS if each in named] or [""]
    chosen: dict[SplitName, str] = {"train": "train", "test": test}
    return {split: named[of] for split, of in chosen.items() if of in named}, others


def _column(heads: Sequence[str], names: Sequence[str]) -> int | None:
    return next((heads.index(name) for name in names if name in heads), None)


def _numbered(opened: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of each line in the file, from 1, and its cells.

    A line with line breaks in quotes has the number of its first one.
    """
    reader = csv.reader(opened)
    first = 1
    for cells in reader:
        yield first, cells
        first = reader.line_num + 1


def _split_named(place: str, word: str, headed: bool) -> str:
    """Return the split that a line names: train, or one of the names of the test split.

    Raises:
        UserError: it names none, or none that is known.
    """
    split = word.lower()
    if split in _TESTS or split in _TRAINS:
        return "train" if split in _TRAINS else split
    known = ", ".join((*_TRAINS, *_TESTS))
    advice = (
        "" if headed else " (if the third column is another one, add a heading, path,label,...)"
    )
    raise UserError(f"{place}: unknown split {word!r}; expected one of {known}{advice}")
