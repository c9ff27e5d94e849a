"""The per-example verdicts of evaluations (``examples.npz``), read where a number needs them.

numpy is imported when a file is read, not before: a table without verdicts starts without it.
"""

import hashlib
import io
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from robustbench_cli.core.errors import UserError
from robustbench_cli.runs.records import Run

if TYPE_CHECKING:
    import numpy as np

_BYTES = 8 * 1000
"""The most bytes that an array of verdicts has per example: of a joint attack on many domains."""
_USUAL = "examples.npz"
_NAMES = "name"
"""The array with the names of the images."""
NAME_BYTES = 4 * 4096
"""The most bytes that the name of an image has: a path, four bytes a character."""
_HEADER = 4096
"""The most bytes of an array's header."""
_DAMAGE = (OSError, ValueError, EOFError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error)
"""What reading a damaged archive may raise."""


class MissingVerdicts(UserError):
    """The verdicts of an evaluation cannot be had; the text says which and why."""


@dataclass(frozen=True, eq=False)
class ExamplesFile:
    """The file with the verdicts of one evaluation on its N examples; it is read once."""

    run_id: str
    path: Path | None
    """None where the evaluation kept no file, or nobody knows its folder."""
    sha256: str
    n: int

    @property
    def called(self) -> str:
        """What messages call it: its name, and the run that it is of."""
        return f"{self.path.name if self.path else _USUAL} of {self.run_id!r}"

    @cached_property
    def names(self) -> "np.ndarray | None":
        """The names of the images (N), such as paths of files; None where they have none."""
        import numpy as np

        try:
            found = np.asarray(self._loaded(_NAMES, NAME_BYTES))
        except (KeyError, MissingVerdicts, *_DAMAGE):
            return None
        return found if found.shape == (self.n,) and found.dtype.kind in "U" else None

    def check_presence(self) -> None:
        """Raise ``MissingVerdicts`` if there is no file; nothing is read."""
        if self.path is None or not self._is_file:
            raise MissingVerdicts(f"{self.called} is missing")

    def array(self, name: str) -> "np.ndarray":
        """Return an array of numbers, e.g. ``pgd20/share``: (N), or (N, K) of a joint attack.

        Raises:
            MissingVerdicts: the file is missing, damaged or not the one that its record names, or
                it holds no such array.
        """
        found = self._arrays.get(name)
        if found is None:
            found = self._arrays[name] = self._read(name)
        if isinstance(found, MissingVerdicts):
            raise found
        return found

    def _read(self, name: str) -> "np.ndarray | MissingVerdicts":
        import numpy as np

        try:
            values = self._loaded(name, _BYTES)
        except MissingVerdicts as error:
            return error
        except KeyError:
            return MissingVerdicts(f"{self.called} has no {name!r}")
        except _DAMAGE as error:
            return MissingVerdicts(f"{self.called} is damaged: {error}")
        if values.shape[:1] != (self.n,) or values.ndim > 2 or values.dtype.kind not in "biuf":
            return MissingVerdicts(f"{self.called} has no {self.n} verdicts in {name!r}")
        return np.asarray(values)

    def _loaded(self, name: str, most: int) -> "np.ndarray":
        """Return an array as it is in the file, of ``most`` bytes per example at most."""
        self.check_presence()
        return self._unpacked(self._archive, name, most)

    def _unpacked(self, archive: zipfile.ZipFile, name: str, most: int) -> "np.ndarray":
        import numpy as np

        entry = archive.getinfo(f"{name}.npy")
        if entry.file_size > _HEADER + most * self.n:
            raise ValueError(f"{name!r} is too large")
        with archive.open(entry) as opened:
            values: np.ndarray = np.lib.format.read_array(opened, allow_pickle=False)
        return values

    @cached_property
    def _is_file(self) -> bool:
        return self.path is not None and self.path.is_file()

    @cached_property
    def _archive(self) -> zipfile.ZipFile:
        """The content of the file; raise ``MissingVerdicts`` if it is not what was recorded."""
        assert self.path is not None
        content = self.path.read_bytes()
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise MissingVerdicts(f"{self.called} is not the file that its record names (sha256)")
        return zipfile.ZipFile(io.BytesIO(content))

    @cached_property
    def _arrays(self) -> "dict[str, np.ndarray | MissingVerdicts]":
        return {}


@dataclass(frozen=True)
class ExampleFiles:
    """The files of evaluations, by the folders of runs; one object per file, so it is read once."""

    folders: Mapping[str, Path] = field(default_factory=dict)
    """By the run's id; runs that are not in it have no verdicts."""
    _known: dict[str, ExamplesFile] = field(default_factory=dict, repr=False)

    @classmethod
    def of_runs(cls, runs: Mapping[Path, Run]) -> "ExampleFiles":
        """Return the files of runs by folder, each of which has an id of its own."""
        return cls({run.id: folder for folder, run in runs.items()})

    def put(self, file: ExamplesFile) -> None:
        """Take another file than the usual one for a run."""
        self._known[file.run_id] = file

    def of(self, run: Run) -> ExamplesFile:
        """Return the file of an evaluation, whether or not it is there."""
        if run.id not in self._known:
            folder, name = self.folders.get(run.id), run.examples.get("file")
            self._known[run.id] = ExamplesFile(
                run_id=run.id,
                path=folder / name if folder and name else None,
                sha256=run.examples.get("sha256", ""),
                n=run.n or 0,
            )
        return self._known[run.id]
