"""Launchers: where the jobs of a study run.  A launcher is one file in this folder."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

from robustbench_cli.commands.study_jobs import Job
from robustbench_cli.core.registry import Registry


class StartedJob(Protocol):
    """A job that was started, here or elsewhere."""

    def done(self) -> bool:
        """Return whether it has ended."""

    def result(self) -> str:
        """Return what went wrong in one line, or nothing; raise where it could not be run."""


StartJob: TypeAlias = Callable[[Job], StartedJob]


@dataclass(frozen=True, kw_only=True)
class Launcher(ABC):
    """A way to start jobs; its fields are the parameters of ``--launcher NAME:key=value``."""

    @abstractmethod
    def opened(self, workers: int, folder: Path) -> AbstractContextManager[StartJob]:
        """Return a context that gives the function which starts a job.

        Jobs that still run when it is left are ended in good order.

        Args:
            workers: how many jobs run at a time at most.
            folder: for files of the launcher's own, below the study's.

        Raises:
            UserError: jobs cannot be started this way on this machine.
        """


LAUNCHERS: Registry[Launcher] = Registry("launcher", __name__)
