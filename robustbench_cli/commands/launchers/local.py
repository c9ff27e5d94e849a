"""Jobs as processes of this machine."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from robustbench_cli.commands.job_runner import run_job
from robustbench_cli.commands.launchers import LAUNCHERS, Launcher, StartJob


@LAUNCHERS.register("local")
@dataclass(frozen=True, kw_only=True)
class LocalLauncher(Launcher):
    """Run jobs on this machine, one thread each."""

    @contextmanager
    def opened(self, workers: int, folder: Path) -> Iterator[StartJob]:
        stop = threading.Event()
        with ThreadPoolExecutor(workers) as pool:
            try:
                yield lambda job: pool.submit(partial(run_job, job, stop))
            finally:
                stop.set()
