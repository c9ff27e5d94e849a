"""Run the jobs of a study side by side, each once, whoever else runs the same study."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from robustbench_cli.commands.job_runner import is_finished, is_locked
from robustbench_cli.commands.job_state import JobState, read_job_state
from robustbench_cli.commands.launchers import Launcher, StartedJob
from robustbench_cli.commands.study_jobs import Job
from robustbench_cli.core.errors import RunError, in_one_line

_LOOK = 0.2
"""Seconds between two looks at the jobs."""


@dataclass(frozen=True, kw_only=True)
class JobEnd:
    """A job that has ended."""

    job: Job
    wrong: str
    """What went wrong, in one line; empty: nothing."""
    seconds: float


class StudyWatcher:
    """Is told how a study goes and shows nothing: override what is to be shown."""

    def begun(self, total: int, finished: int) -> None:
        """The study starts; ``finished`` of its ``total`` jobs were done before."""

    def ended(self, end: JobEnd) -> None:
        """A job has ended, well or not."""

    def running(self, states: Mapping[str, JobState | None], waiting: int) -> None:
        """How far each running job is, by its key; and how many wait for their turn."""


def run_jobs(
    todo: Sequence[Job], launcher: Launcher, workers: int, folder: Path, watcher: StudyWatcher
) -> None:
    """Run the jobs that are not finished yet, ``workers`` at a time.

    A job that another process runs now, of this or of another machine, is waited for.

    Args:
        folder: of the study.

    Raises:
        RunError: some job failed; the others were carried out.
    """
    done = {job.key for job in todo if is_finished(job)}
    for job in todo:
        if job.key in done:  # killed before it could tidy up
            job.state.unlink(missing_ok=True)
    watcher.begun(len(todo), len(done))
    waiting = {job.key: job for job in todo if job.key not in done}
    running: dict[str, tuple[Job, StartedJob, float]] = {}
    failed: dict[str, str] = {}
    with launcher.opened(workers, folder / ".jobs") as start:
        while waiting or running:
            ready = [job for job in waiting.values() if job.needs <= done]
            elsewhere = [job for job in ready if is_locked(job)]
            for job in [job for job in ready if job not in elsewhere][: workers - len(running)]:
                running[job.key] = (job, start(waiting.pop(job.key)), time.monotonic())
            if not (running or elsewhere):  # what is left needs something that failed
                failed |= dict.fromkeys(waiting, "what it builds on failed")
                break
            for key, (job, started, since) in [*running.items()]:
                if not started.done():
                    continue
                del running[key]
                wrong = _went_wrong(started)
                done |= set() if wrong else {key}
                failed |= {key: wrong} if wrong else {}
                watcher.ended(JobEnd(job=job, wrong=wrong, seconds=time.monotonic() - since))
            states = {key: read_job_state(job.state) for key, (job, _, _) in running.items()}
            states |= {job.key: read_job_state(job.state) for job in elsewhere}
            watcher.running(states, len(waiting))
            time.sleep(_LOOK)
    if failed:
        first = next(iter(failed.items()))
        raise RunError(f"{len(failed)} of {len(todo)} failed; {first[0]}: {first[1]}")


def _went_wrong(started: StartedJob) -> str:
    """Return what went wrong with a job that has ended, in one line, or nothing."""
    try:
        return started.result()
    except Exception as error:  # a damaged record, a full disk, a lost node: other jobs go on
        return in_one_line(error)
