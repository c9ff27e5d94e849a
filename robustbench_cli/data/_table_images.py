"""The image files in the cells of tables, read when they are asked for.

Those of a small table are held in memory.  Those of a large one are written side by side into one
file of the cache, from which any of them can be read: tables can only be read in long stretches.
Of images that lie in files beside the table only the paths are kept.
"""

import hashlib
import importlib
import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np

from robustbench_cli.core.atomic_files import write_atomically
from robustbench_cli.core.cache_folder import room
from robustbench_cli.core.errors import UserError
from robustbench_cli.data._columns import Part
from robustbench_cli.data.decode import Encoded, Slice
from robustbench_cli.data.stored import memory_limit


class TableImages(Sequence[Encoded]):
    """The images of some tables in a given order."""

    def __init__(self, parts: Sequence[Part], column: str, order: np.ndarray) -> None:
        self._parts, self._column, self._order = parts, column, order

    def __len__(self) -> int:
        return len(self._order)

    @overload
    def __getitem__(self, index: int) -> Encoded: ...
    @overload
    def __getitem__(self, index: slice) -> list[Encoded]: ...
    def __getitem__(self, index: int | slice) -> Encoded | list[Encoded]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        row = int(self._order[index])
        if isinstance(self._held, list):
            return self._held[row]
        file, (ends, beside) = self._held
        first = int(ends[row - 1]) if row else 0
        piece = Slice(file, first, int(ends[row]) - first)
        if not beside[row]:
            return Encoded(piece, self.where(row))
        return Encoded(Path(os.fsdecode(Encoded(piece, self.where(row)).read())), self.where(row))

    def where(self, row: int) -> str:
        """Return the name of an image in messages: its table and its row there."""
        for part in self._parts:
            if row < part.rows:
                return f"{part.where}, row {row}"
            row -= part.rows
        raise IndexError(row)

    def in_order(self) -> Iterator[Encoded]:
        """Yield the images in the order of the tables; few are in memory at a time."""
        return encoded(self._parts, self._column)

    def names(self) -> list[str]:
        """Return the names of the files that images were taken from, else table and row."""
        found = [name for part in self._parts for name in _file_names(part, self._column)]
        return [found[row] for row in self._order.tolist()]

    @cached_property
    def _held(self) -> list[Encoded] | tuple[Path, np.ndarray]:
        """The images, or the file that they lie in and its index (2, N): where each ends there, and
        whether it is the path of a file beside the table."""
        held, size, limit = list[Encoded](), 0, memory_limit()
        for image in self.in_order():
            held.append(image)
            size += len(image.content) if isinstance(image.content, bytes) else 0
            if size > limit:
                break
        else:
            return held
        del held
        return self._written()

    def _written(self) -> tuple[Path, np.ndarray]:
        state = repr(("2", self._column, [part.state for part in self._parts]))
        key = hashlib.sha256(state.encode()).hexdigest()
        file, index = (room("encoded") / f"{key}.{kind}" for kind in ("bin", "npy"))
        known = _known_index(file, index, sum(part.rows for part in self._parts))
        if known is not None:
            return file, known
        sizes, beside = list[int](), list[bool]()

        def save(part: Path) -> None:
            sizes.clear()
            beside.clear()
            with part.open("wb") as out:
                for image in self.in_order():
                    # A file beside the table stays there: a copy would outlive a change of it.
                    apart = isinstance(image.content, Path)
                    beside.append(apart)
                    sizes.append(
                        out.write(os.fsencode(str(image.content)) if apart else image.read())
                    )

        write_atomically(file, save)
        made = np.stack([np.cumsum(np.array(sizes, np.int64)), np.array(beside, np.int64)])

        def save_index(part: Path) -> None:
            with part.open("wb") as out:
                np.save(out, made)

        write_atomically(index, save_index)
        return file, made


def _known_index(file: Path, index: Path, count: int) -> np.ndarray | None:
    """Return the index of a file of the cache (2, N) int64.

    None where one of the files is missing, or damaged as far as that can be seen.
    """
    try:
        found, size = np.load(index, allow_pickle=False), file.stat().st_size
    except (OSError, ValueError, EOFError):
        return None
    fits = isinstance(found, np.ndarray) and (found.dtype, found.shape) == (np.int64, (2, count))
    return found if fits and count and int(found[0, -1]) == size else None


def encoded(parts: Sequence[Part], column: str) -> Iterator[Encoded]:
    """Yield the images in order, each named by file and row.

    Raises:
        UserError: a cell holds no image, or a table is damaged.
    """
    for part in parts:
        row = 0
        for values in part.stretches(column):
            for value in values.to_pylist():
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


def _file_names(part: Part, column: str) -> list[str]:
    """Return the names of a table's images: of the files that they were, else table and row."""
    rows = [f"{Path(part.where).name}, row {row}" for row in range(part.rows)]
    cell = part.schema.field(column).type
    struct = importlib.import_module("pyarrow").types.is_struct(cell)
    if not struct or "path" not in [field.name for field in cell]:
        return rows
    paths = part.paths(column)
    return [str(path) if path else row for path, row in zip(paths, rows, strict=True)]
