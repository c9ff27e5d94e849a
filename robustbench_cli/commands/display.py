"""The interface through which a run reports its progress."""

from pathlib import Path

from robustbench_cli.runs.records import Run
from robustbench_cli.training.trainer import HistoryRow, Watch


class Display:
    """Receives the progress of a run and shows nothing: override what is to be shown."""

    def note(self, text: str) -> None:
        """Show a line of text."""

    def started(self, run: Run, folder: Path) -> None:
        """The run of this record starts, or goes on, in this folder."""

    def training(self, epochs: int, done: int) -> None:
        """Training starts; an earlier process has finished ``done`` of the epochs."""

    def batch(self, watch: Watch) -> None:
        """A training batch is done."""

    def epoch(self, row: HistoryRow) -> None:
        """An epoch is done; ``row`` holds its loss, accuracies and seconds."""

    def fitting(self, member: str, done: int, of: int) -> None:
        """An attack that is fitted to training images has done so many rounds of at most ``of``."""

    def working(self, what: str, done: int, of: int) -> None:
        """Work that yields no accuracy has done so many of its parts; with 0 done it starts."""

    def judging(self, label: str, n: int, what: str = "robust accuracy") -> None:
        """An attack (or ``clean``, or a certificate) starts on ``n`` examples.

        Args:
            label: the attack as it was written.
            n: how many examples this process judges.
            what: the name of the accuracy that ``judged`` reports.
        """

    def judged(self, done: int, accuracy: float) -> None:
        """``done`` examples have their verdict; the accuracy so far is a share in [0, 1]."""
