"""How far a job of a study is: a small file that the job writes and the study reads.

A file, as the job may run on another machine that shares the folder.  No torch in here: a study
does without.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

STATE_VARIABLE = "ADVBENCH_JOB_STATE"
"""The environment variable with the file that a command writes its progress to."""


@dataclass(frozen=True, kw_only=True)
class JobState:
    """What a job is doing, and how far it is with that."""

    what: str
    """``epoch 3/20``, or the attack."""
    done: float
    """In epochs, or in images."""
    total: float
    measured: str = ""
    """What the accuracy is of: ``robust accuracy``."""
    accuracy: float | None = None
    """So far, as a share."""
    seconds_left: float | None = None
    """Until this training, or this attack, is done; None where nothing is known yet."""

    @property
    def text(self) -> str:
        """The state in a few words: ``epoch 3/20  robust 41.2 %``."""
        share = "" if self.accuracy is None else f"{self.measured} {self.accuracy:.1%} so far"
        return "  ".join(filter(None, (self.what, share)))


_STATE = TypeAdapter(JobState)


def read_job_state(path: Path) -> JobState | None:
    """Return what a job has written; None where it has written nothing yet."""
    try:
        return _STATE.validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def write_job_state(path: Path, state: JobState) -> None:
    """Replace the file whole; a disk that is full or a folder that is gone is no failure."""
    part = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        part.write_bytes(_STATE.dump_json(state))
        part.replace(path)
    except OSError:
        return
