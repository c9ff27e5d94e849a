"""Run one job of a study: its commands in order, each in a process of its own, at most once.

A job is locked while it runs, and the lock goes on to the process of its command: if the study is
killed and started again while an orphaned training goes on, the new one waits for it instead of
starting a second one.
"""

import fcntl
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from robustbench_cli.commands.job_state import STATE_VARIABLE
from robustbench_cli.commands.study_jobs import Job, options_apart
from robustbench_cli.runs import records

_LOOK = 0.2
"""Seconds between two looks at a process or a lock."""
STOPPED = "it was stopped"
_PLACES = frozenset({"--out", "--data-dir", "--device"})
"""Options of every command of a study that say where it runs."""


def is_finished(job: Job) -> bool:
    """Return whether every command of a job is done."""
    return all(_status(job.results / each.folder) == "ok" for each in job.commands)


def made_otherwise(job: Job) -> list[str]:
    """Return the finished folders of a job whose commands were not those that it has now.

    They stay as they are, as a study does nothing twice; where and on what device a command ran
    does not matter.
    """
    found = []
    for each in job.commands:
        folder = job.results / each.folder
        if _status(folder) == "ok" and _asked(records.read(folder).command) != _asked(each.words):
            found.append(f"{job.results.name}/{each.folder}")
    return found


def _asked(words: Sequence[str]) -> list[str]:
    """Return the words of a command without those that its numbers do not depend on."""
    kept, rest = list[str](), iter(options_apart(words))
    for word in rest:
        if word in _PLACES:
            next(rest, "")
        elif word != "--quiet":
            kept.append(word)
    return kept


def is_locked(job: Job) -> bool:
    """Return whether somebody runs this job now."""
    if not job.lock.exists():
        return False
    descriptor = os.open(job.lock, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return not _taken(descriptor)
    finally:
        os.close(descriptor)


def run_job(job: Job, stop: threading.Event | None = None, threads: int = 1) -> str:
    """Run what is left of a job; return what went wrong in one line, or nothing.

    Args:
        stop: ends the job in good order as soon as it is set.
        threads: of each process.  Those of processes that share the cores wait for each other.
    """
    stop = stop or threading.Event()
    with _held(job.lock, stop) as descriptor:
        job.state.unlink(missing_ok=True)
        for command in job.commands:
            if stop.is_set():
                return STOPPED
            folder = job.results / command.folder
            status = _status(folder)
            if status == "ok":
                continue
            if status and not command.again:  # it was killed, and cannot go on
                shutil.rmtree(folder)
            words = command.again if status and command.again else command.words
            if wrong := _call(words, job, descriptor, stop, threads):
                return wrong
        job.state.unlink(missing_ok=True)
    return ""


def _status(folder: Path) -> str:
    """Return how a run ended; nothing: there is none.

    An evaluation that was stopped between two looks at ever more images has not ended.
    """
    if not (folder / "run.json").is_file():
        return ""
    run = records.read(folder)
    due = run.widened is not None and run.widened.goes_on
    return "interrupted" if run.status == "ok" and due else run.status


@contextmanager
def _held(path: Path, stop: threading.Event) -> Iterator[int]:
    """Wait until nobody else holds the lock, and hold it; yield its descriptor."""
    path.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o666)
    try:
        while not _taken(descriptor) and not stop.is_set():
            time.sleep(_LOOK)
        yield descriptor
    finally:
        os.close(descriptor)


def _taken(descriptor: int) -> bool:
    """Take a lock, if nobody has it; return whether it was taken."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _call(words: Sequence[str], job: Job, lock: int, stop: threading.Event, threads: int) -> str:
    """Run ``advbench`` in a process of its own; return its last line of output if it failed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "robustbench_cli", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        pass_fds=(lock,),
        env={
            "OMP_NUM_THREADS": str(threads),
            **os.environ,
            STATE_VARIABLE: str(job.state.absolute()),
        },
    )
    while True:
        try:
            said = process.communicate(timeout=_LOOK)[1].strip().splitlines()
            break
        except subprocess.TimeoutExpired:
            if stop.is_set():
                process.terminate()
                process.communicate()
                return STOPPED
    return (said[-1] if said else f"exit code {process.returncode}") if process.returncode else ""
