"""Logs that follow a training from outside, epoch by epoch.  A log is one file in this folder."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from robustbench_cli.core.registry import Registry
from robustbench_cli.runs.records import Run
from robustbench_cli.training.trainer import HistoryRow

LogEpoch: TypeAlias = Callable[[HistoryRow], None]
"""Writes a row of the history, whose values may be None."""


@dataclass(frozen=True, kw_only=True)
class TrainingLog(ABC):
    """A place that a training is logged to; its fields are the parameters of ``--log``."""

    @abstractmethod
    def check(self) -> None:
        """Raise ``UserError`` if the package that it takes is not installed."""

    @abstractmethod
    def opened(self, run: Run, folder: Path) -> AbstractContextManager[LogEpoch]:
        """Return a context that gives the function which logs an epoch.

        Args:
            run: the record of the training as it begins, or as it is taken up again.
            folder: of the run.
        """


LOGS: Registry[TrainingLog] = Registry("log", __name__)
