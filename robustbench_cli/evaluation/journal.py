"""The verdicts on disk: a small file every few seconds, merged into one at the end.

Each file holds the examples with a new verdict since the file before.  An evaluation that is killed
loses the examples that were under attack and the verdicts of the last few seconds.
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
"""The seconds between two files."""


class Entries(Protocol):
    """Verdicts of any kind, as the journal keeps them."""

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """Arrays (N, ...) by name; ``stages`` (N) counts the stages an example has been through."""


class Journal:
    """The verdicts of one evaluation, by column: 0 for the clean images, then one per attack.

    Several processes may write to one journal, each about examples of its own.
    """

    def __init__(self, folder: Path, n: int) -> None:
        self._folder = folder / "journal"
        self._n = n
        self._unwritten: list[np.ndarray] = []
        self._written_at = time.perf_counter()
        self.spent = 0.0
        """The seconds from ``started`` to the last file."""

    def column(self, name: str) -> tuple[AttackVerdicts, float]:
        """Return the verdicts that the journal has on an attack, and the seconds they took.

        Raises:
            UserError: a file is damaged; it is named.
        """
        column = AttackVerdicts.empty(self._n)
        return column, self.recall(name, column)

    def recall(self, name: str, entries: Entries) -> float:
        """Fill ``entries`` with what the journal has; return the seconds that it took.

        Raises:
            UserError: a file is damaged; it is named.
        """
        seconds = 0.0
        for path in sorted(self._folder.glob(f"{name}-*.npz")):
            loaded = read_arrays(path)
            rows, stages = loaded["rows"], entries.arrays["stages"]
            later = loaded["stages"] >= stages[rows]
            # An array that an older version did not write keeps its initial values.
            for key, values in entries.arrays.items():
                if key in loaded:
                    values[rows[later]] = loaded[key][later]
            seconds += float(loaded["seconds"])
        return seconds

    def moved(self, name: str, column: Entries, rows: np.ndarray) -> None:
        """Note that the examples ``rows`` have new verdicts; write a file if it is time to."""
        self._unwritten.append(rows)
        if time.perf_counter() - self._written_at > FLUSH:
            self.flush(name, column)

    def flush(self, name: str, column: Entries) -> None:
        """Write the new verdicts since the last file, and the seconds that they took."""
        now = time.perf_counter()
        spent, self._written_at = now - self._written_at, now
        self.spent += spent
        rows = (
            np.unique(np.concatenate(self._unwritten)) if self._unwritten else np.zeros(0, np.int64)
        )
        self._unwritten = []
        if len(rows):
            self._folder.mkdir(exist_ok=True)
            write_arrays(
                # A unique name: no other process has these examples, and time goes on.
                self._folder / f"{name}-{int(rows[0]):07d}-{time.time_ns()}.npz",
                {
                    "rows": rows,
                    "seconds": np.array(spent),
                    **{key: values[rows] for key, values in column.arrays.items()},
                },
            )

    def started(self) -> None:
        """Begin to count the seconds of the next column."""
        self._written_at, self.spent = time.perf_counter(), 0.0

    def close(self, arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
        """Write ``examples.npz``; return its name and SHA-256.  The journal stays for now."""
        path = write_arrays(self._folder.parent / "examples.npz", arrays)
        return {"file": path.name, "sha256": sha256(path)}

    def drop(self) -> None:
        """Remove the journal; the record must say already that the evaluation is finished."""
        shutil.rmtree(self._folder, ignore_errors=True)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> Path:
    """Write a compressed .npz file, so that it is complete or absent; return its path."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, values in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.asanyarray(values), allow_pickle=False)
    return write_bytes_atomically(path, buffer.getvalue())


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays in ``path``.

    Raises:
        UserError: the file is missing or damaged; it is named.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is damaged: {error}; delete it to judge its part again") from None
