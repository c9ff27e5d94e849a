"""The progress of a command that is a job of a study: into the study's file, not on the screen."""

import time
from pathlib import Path

from robustbench_cli.commands.display import Display
from robustbench_cli.commands.job_state import JobState, write_job_state
from robustbench_cli.training.trainer import HistoryRow, Watch

_EVERY = 1.0
"""Seconds between two writes: reading the accuracy waits for the device."""


class JobStateFile(Display):
    """Writes the progress of a command into a file, about once a second."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written = 0.0
        self._epochs = self._epoch = 0
        self._began, self._first = time.monotonic(), 0.0
        self._label, self._n, self._what = "", 0, ""
        self._share: float | None = None

    def training(self, epochs: int, done: int) -> None:
        self._epochs, self._epoch = epochs, done
        self._start(done)
        self._write(self._trained(done))

    def batch(self, watch: Watch) -> None:
        if not self._due:
            return
        found = watch.accuracy("adv")
        self._what = "robust" if found is not None else "clean"
        self._share = watch.accuracy("clean") if found is None else found
        self._write(self._trained(self._epoch + watch.batch / watch.batches))

    def epoch(self, row: HistoryRow) -> None:
        self._epoch += 1
        if self._due:
            self._write(self._trained(self._epoch))

    def working(self, what: str, done: int, of: int) -> None:
        if not done:
            self._label, self._n, self._what = what, of, ""
            self._start(0)
        if self._due or done in (0, of):
            self._write(self._judged(done, None))

    def judging(self, label: str, n: int, what: str = "robust accuracy") -> None:
        self._label, self._n, self._what = label, n, what
        self._start(0)
        self._write(self._judged(0, None))

    def judged(self, done: int, accuracy: float) -> None:
        if self._due or done == self._n:
            self._write(self._judged(done, accuracy))

    @property
    def _due(self) -> bool:
        return time.monotonic() - self._written >= _EVERY

    def _start(self, done: float) -> None:
        self._began, self._first = time.monotonic(), done

    def _left(self, done: float, total: float) -> float | None:
        fresh = done - self._first
        spent = time.monotonic() - self._began
        return spent / fresh * (total - done) if fresh > 0 else None

    def _trained(self, done: float) -> JobState:
        return JobState(
            what=f"epoch {min(int(done) + 1, self._epochs)}/{self._epochs}",
            done=done,
            total=self._epochs,
            measured=self._what,
            accuracy=self._share,
            seconds_left=self._left(done, self._epochs),
        )

    def _judged(self, done: int, accuracy: float | None) -> JobState:
        return JobState(
            what=self._label,
            done=done,
            total=self._n,
            measured=self._what,
            accuracy=accuracy,
            seconds_left=self._left(done, self._n),
        )

    def _write(self, state: JobState) -> None:
        self._written = time.monotonic()
        write_job_state(self._path, state)
