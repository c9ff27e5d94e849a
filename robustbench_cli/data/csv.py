"""A table of image files and their labels, as spreadsheets and scripts write it.

Comma-separated values (Shafranovich, 2005), https://www.rfc-editor.org/rfc/rfc4180.
"""

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
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
_TESTS = ("test", "val", "valid", "validation")
"""Names of the test split, in any case; the first one that there is counts."""


@DATASETS.register("csv", positional="path")
@dataclass(frozen=True, kw_only=True)
class Csv(Files):
    """A file with a line ``path,label`` for each image; paths are relative to the file's folder.

    A heading may name the columns (``path``, ``label``, ``split``); without one they stand in this
    order.  Labels are texts or numbers; classes are numbered in the order of their sorted names,
    numbers by size.  The test split is in another file (``test=FILE``), or the lines whose
    ``split`` is test, or else val; a table of one split can be evaluated, and be ``--extra-data``.
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
        UserError: the table is absent, empty or no text, or lacks a path or a label.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened:
            lines = [line for line in csv.reader(opened) if any(map(str.strip, line))]
    except OSError as error:
        raise UserError(f"{name}: {file}: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{name}: {file} is no table of text") from error
    if not lines:
        raise UserError(f"{name}: {file} is empty")
    heads = [cell.strip().lower() for cell in lines[0]]
    columns = [_column(heads, names) for names in (FILES, CLASSES, SPLITS)]
    headed = columns[0] is not None
    if headed and columns[1] is None:
        raise UserError(f"{name}: no column of labels ({', '.join(CLASSES)}); it has {heads}")
    path_at, label_at, split_at = columns if headed else (0, 1, None)
    named: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for number, line in enumerate(lines[headed:], 1 + headed):
        cells = [
            line[at].strip() if at is not None and at < len(line) else ""
            for at in (path_at, label_at, split_at)
        ]
        if not (cells[0] and cells[1]):
            raise UserError(f"{name}: line {number} of {file} has no path, or no label")
        place = file.parent / Path(cells[0]).expanduser()
        if not place.is_file():
            raise UserError(f"{name}: line {number} of {file}: no file {str(place)!r}")
        of = cells[2].lower() if cells[2].lower() in _TESTS else "train"
        named[of].append((str(place), cells[1]))
    if not named:
        raise UserError(f"{name}: {file} has a heading and no lines")
    test, *others = [each for each in _TESTS if each in named] or [""]
    chosen: dict[SplitName, str] = {"train": "train", "test": test}
    return {split: named[of] for split, of in chosen.items() if of in named}, others


def _column(heads: Sequence[str], names: Sequence[str]) -> int | None:
    return next((heads.index(name) for name in names if name in heads), None)
