"""Verdicts on disk: a small file every few seconds, merged into one when all are there.

Each file holds the state of the examples that have come on since the last one.  A killed
evaluation loses the examples that were under attack and what the last seconds found.
"""

import io
import shutil
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np

from robustbench_cli.core.atomic_files import write_bytes_atomically
from robustbench_cli.core.errors import UserError
from robustbench_cli.evaluation.stages import AttackVerdicts
from robustbench_cli.runs.records import sha256

FLUSH = 5.0
"""Seconds between files."""


class Entries(Protocol):
    """Arrays with one entry per example; ``stages`` says how far each example has come."""

    @property
    def arrays(self) -> dict[str, np.ndarray]: ...


class Journal:
    """The verdicts of one evaluation, by column: ``clean`` and each attack's position.

    Several processes may keep one, as long as they have different examples.
    """

    def __init__(self, folder: Path, n: int) -> None:
        self._folder = folder / "journal"
        self._n = n
        self._moved: list[np.ndarray] = []
        self._kept_at = time.perf_counter()
        self.spent = 0.0
        """Seconds since ``started``, as of the last file."""

    def column(self, name: str) -> tuple[AttackVerdicts, float]:
        """What is known already, and the seconds it took.

        Raises:
            UserError: naming a damaged file.
        """
        column = AttackVerdicts.empty(self._n)
        return column, self.recall(name, column)

    def recall(self, name: str, entries: Entries) -> float:
        """Fill in what is known already; return the seconds it took.

        Raises:
            UserError: naming a damaged file.
        """
        seconds = 0.0
        for path in sorted(self._folder.glob(f"{name}-*.npz")):
            loaded = read_arrays(path)
            rows, stages = loaded["rows"], entries.arrays["stages"]
            later = loaded["stages"] >= stages[rows]
            # A column that a later version brought stays as it is before anything is known.
            for key, values in entries.arrays.items():
                if key in loaded:
                    values[rows[later]] = loaded[key][later]
            seconds += float(loaded["seconds"])
        return seconds

    def moved(self, name: str, column: Entries, rows: np.ndarray) -> None:
        """Some examples have come on; they are written when it is time to."""
        self._moved.append(rows)
        if time.perf_counter() - self._kept_at > FLUSH:
            self.flush(name, column)

    def flush(self, name: str, column: Entries) -> None:
        """Write what has come on since the last file, and the time it took to find."""
        now = time.perf_counter()
        spent, self._kept_at = now - self._kept_at, now
        self.spent += spent
        rows = np.unique(np.concatenate(self._moved)) if self._moved else np.zeros(0, np.int64)
        self._moved = []
        if len(rows):
            self._folder.mkdir(exist_ok=True)
            write_arrays(
                # No other process has these examples, and this one has one clock.
                self._folder / f"{name}-{int(rows[0]):07d}-{time.time_ns()}.npz",
                {
                    "rows": rows,
                    "seconds": np.array(spent),
                    **{key: values[rows] for key, values in column.arrays.items()},
                },
            )

    def started(self) -> None:
        """Time that passes from here on is the next column's."""
        self._kept_at, self.spent = time.perf_counter(), 0.0

    def close(self, arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
        """Write ``examples.npz`` and say its name and sha256; the journal stays for now."""
        path = write_arrays(self._folder.parent / "examples.npz", arrays)
        return {"file": path.name, "sha256": sha256(path)}

    def drop(self) -> None:
        """Remove the journal, once the record says that the evaluation is finished."""
        shutil.rmtree(self._folder, ignore_errors=True)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> Path:
    """A compressed .npz, complete or absent."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, values in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.asanyarray(values), allow_pickle=False)
    return write_bytes_atomically(path, buffer.getvalue())


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays in ``path``; raise ``UserError`` naming it if it is damaged."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is damaged: {error}; delete it to judge its part again") from None
