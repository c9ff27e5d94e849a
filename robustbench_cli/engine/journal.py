"""Verdicts on disk: one small file per finished batch, merged into one when all are there.

A killed evaluation loses the batch it was in and nothing else.
"""

import io
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from robustbench_cli.engine.evaluate import Verdicts
from robustbench_cli.errors import UserError
from robustbench_cli.records import sha256, write_bytes


@dataclass
class Column:
    """One attack's verdicts so far, and what they cost."""

    arrays: dict[str, np.ndarray]
    done: set[int] = field(default_factory=set)
    """First indices of the finished batches."""
    forwards: int = 0
    backwards: int = 0
    seconds: float = 0.0

    @classmethod
    def empty(cls, n: int) -> "Column":
        """A column for ``n`` examples, none judged yet."""
        return cls(
            {
                "prediction": np.full(n, -1, np.int32),
                "norm": np.zeros(n, np.float32),
                "step": np.full(n, -1, np.int32),
            }
        )

    def put(self, rows: slice, verdicts: Verdicts) -> None:
        """Take a batch in."""
        self.arrays["prediction"][rows] = verdicts.prediction.numpy()
        self.arrays["norm"][rows] = verdicts.norm.numpy()
        self.arrays["step"][rows] = verdicts.step.numpy()
        self.done.add(rows.start)
        self.forwards += verdicts.forwards
        self.backwards += verdicts.backwards
        self.seconds += verdicts.seconds


class Journal:
    """The verdicts of one evaluation, by column: ``clean`` and each attack's position."""

    def __init__(self, folder: Path, n: int) -> None:
        self._folder = folder / "journal"
        self._n = n

    def column(self, name: str) -> Column:
        """What is already judged; raise ``UserError`` naming a damaged file."""
        column = Column.empty(self._n)
        for path in sorted(self._folder.glob(f"{name}-*.npz")):
            loaded = read_arrays(path)
            start, stop, forwards, backwards = (int(v) for v in loaded["rows"])
            verdicts = Verdicts(
                prediction=torch.from_numpy(loaded["prediction"]),
                norm=torch.from_numpy(loaded["norm"]),
                step=torch.from_numpy(loaded["step"]),
                forwards=forwards,
                backwards=backwards,
                seconds=float(loaded["seconds"]),
            )
            column.put(slice(start, stop), verdicts)
        return column

    def append(self, name: str, rows: slice, verdicts: Verdicts) -> None:
        """Keep one finished batch."""
        self._folder.mkdir(exist_ok=True)
        write_arrays(
            self._folder / f"{name}-{rows.start:07d}.npz",
            {
                "rows": np.array([rows.start, rows.stop, verdicts.forwards, verdicts.backwards]),
                "seconds": np.array(verdicts.seconds),
                "prediction": verdicts.prediction.numpy(),
                "norm": verdicts.norm.numpy(),
                "step": verdicts.step.numpy(),
            },
        )

    def close(self, arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
        """Write ``examples.npz`` and say its name and sha256; the batch files stay for now."""
        path = write_arrays(self._folder.parent / "examples.npz", arrays)
        return {"file": path.name, "sha256": sha256(path)}

    def drop(self) -> None:
        """Remove the batch files, once the record says that the evaluation is finished."""
        shutil.rmtree(self._folder, ignore_errors=True)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> Path:
    """A compressed .npz, complete or absent."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, values in arrays.items():
            with archive.open(f"{name}.npy", "w") as entry:
                np.lib.format.write_array(entry, np.asanyarray(values), allow_pickle=False)
    return write_bytes(path, buffer.getvalue())


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays in ``path``; raise ``UserError`` naming it if it is damaged."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is damaged: {error}; delete it to judge its batch again") from None
