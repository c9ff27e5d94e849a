"""Image files (PNG, JPEG and others) as a source of images, decoded when they are asked for."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from robustbench_cli.core.cache_folder import file_stamp, remembered
from robustbench_cli.data.decode import Encoded, Layout, decode, decoder_versions, layout
from robustbench_cli.data.stored import ImageSource

_VERSION = "1"
"""Changed whenever the same files would give other images or other facts."""


@dataclass(frozen=True, eq=False, kw_only=True)
class EncodedImages(ImageSource):
    """The image files of a split, in its order."""

    name: str
    """Name of the data set in messages."""
    items: Sequence[Encoded]
    everything: Callable[[], Iterable[Encoded]]
    """Returns the images of all splits, whose headers decide the common layout."""
    size: int | None = None
    """Scale and crop to this many pixels per side; None: all have one size."""
    scale: int | None = None
    """Scale the shorter side to this before the crop; None: to ``size``."""
    state: str
    """Text that is another one whenever a file, its place or its time of change is another."""
    beside: bool = False
    """Whether there may be image files that ``state`` knows nothing of."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        channels, height, width = self._facts["layout"]
        return len(self.items), channels, height, width

    def read(self, rows: list[int]) -> Tensor:
        return decode(self.name, [self.items[row] for row in rows], self._layout)

    def digest(self) -> str:
        return str(self._facts["sha256"])

    def cache_key(self) -> str:
        """Return the key of the decoded images.

        Two versions of a decoder may decode one file to pixels that differ a little.
        """
        return hashlib.sha256(f"{self.digest()} {decoder_versions()}".encode()).hexdigest()

    @property
    def _layout(self) -> Layout:
        channels, height, width = self._facts["layout"]
        return Layout(channels, height, width, resize=self.size is not None, scale=self.scale)

    @cached_property
    def _facts(self) -> dict[str, Any]:
        """Layout and hash, which take as long to find as reading all files."""
        asked = repr((_VERSION, self.name, self.size, self.scale, self.state))
        key = hashlib.sha256(asked.encode()).hexdigest()
        return remembered(key, self._find_facts, lambda found: _unchanged(found["files"]))

    def _find_facts(self) -> dict[str, Any]:
        files = dict[str, list[int]]()

        def stamped(items: Iterable[Encoded]) -> Iterator[Encoded]:
            for item in items:
                if self.beside and isinstance(item.content, Path):
                    files[str(item.content)] = file_stamp(item.content)
                yield item

        # The layout may depend on images of the other split, too.
        wanted = layout(self.name, stamped(self.everything()), self.size)
        shape = [wanted.channels, wanted.height, wanted.width]
        found = hashlib.sha256(repr((_VERSION, shape, self.size, self.scale)).encode())
        for item in stamped(self.items):
            found.update(item.sha256())
        return {"layout": shape, "sha256": found.hexdigest(), "files": files}


def _unchanged(files: Mapping[str, list[int]]) -> bool:
    """Return True if all files are as they were, by their stamps."""
    try:
        return all(file_stamp(file) == stamp for file, stamp in files.items())
    except OSError:
        return False
