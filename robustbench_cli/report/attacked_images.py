"""The verdicts in the images that ``advbench attack`` keeps, read as those of an evaluation."""

import hashlib
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from robustbench_cli.report.columns import CLEAN
from robustbench_cli.report.example_files import (
    NAME_BYTES,
    ExampleFiles,
    ExamplesFile,
    MissingVerdicts,
)
from robustbench_cli.runs.records import Run

if TYPE_CHECKING:
    import numpy as np

_KEPT = ("y", "clean", "adversarial", "norm", "index", "name")
"""The arrays that are read."""
_SAME = {"label": "y", f"{CLEAN}/prediction": "clean"}
"""The arrays of an evaluation that such a file has under another name."""


@dataclass(frozen=True, eq=False)
class AttackedImagesFile(ExamplesFile):
    """``adversarial.npz`` with the N images of one attack; the images themselves are not read."""

    label: str
    """Of the attack."""

    def _loaded(self, name: str, most: int) -> "np.ndarray":
        self.check_presence()
        kept = self._kept()
        made: Mapping[str, Callable[[], np.ndarray]] = {
            f"{CLEAN}/share": lambda: kept["clean"] == kept["y"],
            f"{self.label}/prediction": lambda: kept["adversarial"],
            f"{self.label}/share": lambda: kept["adversarial"] == kept["y"],
            f"{self.label}/norm": lambda: kept["norm"],
            # Which stage broke an image is not kept, only whether one did.
            f"{self.label}/by": lambda: (kept["adversarial"] != kept["y"]) - 1,
        }
        return made[name]() if name in made else kept[_SAME.get(name, name)]

    def _kept(self) -> "Mapping[str, np.ndarray]":
        """Return what the file has beside images; it is read once, and hashed as it is read.

        Raises:
            MissingVerdicts: it is not the file that the record names.
        """
        if not self._read_once:
            assert self.path is not None
            with self.path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != self.sha256:
                    raise MissingVerdicts(
                        f"{self.called} is not the file that its record names (sha256)"
                    )
                with zipfile.ZipFile(file) as archive:
                    names = [name for name in _KEPT if f"{name}.npy" in archive.namelist()]
                    found = {name: self._unpacked(archive, name, NAME_BYTES) for name in names}
            self._read_once.update(found)
        return self._read_once

    @cached_property
    def _read_once(self) -> "dict[str, np.ndarray]":
        return {}


def as_evaluation(run: Run, files: ExampleFiles) -> Run:
    """Return a finished run of ``advbench attack`` as an evaluation under its one attack.

    Its verdicts are read from the images that it keeps; those of a randomised model, of which a
    file of images tells one draw only, do not add up to the record and are refused as such.

    Args:
        run: a record of the kind ``attack``.
        files: is told where the verdicts are.
    """
    (label,) = {**run.attacks, **run.targeted}
    folder, name = files.folders.get(run.id), run.examples.get("file")
    files.put(
        AttackedImagesFile(
            run_id=run.id,
            path=folder / name if folder and name else None,
            sha256=run.examples.get("sha256", ""),
            n=run.n or 0,
            label=label,
        )
    )
    return replace(run, kind="eval")
