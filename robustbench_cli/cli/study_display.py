"""The progress of a study on standard error: a bar for each running job, or plain lines."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from robustbench_cli.cli.listing import accuracies_in_words
from robustbench_cli.commands.job_state import JobState
from robustbench_cli.commands.study_jobs import Job
from robustbench_cli.commands.study_run import JobEnd, StudyWatcher
from robustbench_cli.core.safe_text import one_line
from robustbench_cli.runs import records

_LINES_EVERY = 60.0
"""Seconds between two reports on running jobs where there is no terminal."""

_COLUMNS = (
    TextColumn("{task.description}"),
    BarColumn(bar_width=20),
    MofNCompleteColumn(),
    TimeElapsedColumn(),
    TextColumn("{task.fields[left]}"),
    TextColumn("{task.fields[said]}"),
)


@contextmanager
def study_display(workers: int, quiet: bool) -> Iterator[StudyWatcher]:
    """Give the watcher that fits: none if quiet, live bars on a terminal, plain lines elsewhere."""
    console = Console(stderr=True)
    if quiet:
        yield StudyWatcher()
    elif not console.is_terminal:
        yield StudyLines()
    else:
        with Progress(*_COLUMNS, console=console, refresh_per_second=2) as progress:
            yield StudyBars(progress, workers)


class StudyLines(StudyWatcher):
    """One line for each job that ends, and now and then one for each that runs."""

    def __init__(self) -> None:
        self._total = self._done = 0
        self._told = time.monotonic()

    def begun(self, total: int, finished: int) -> None:
        self._total, self._done = total, finished
        if finished:
            typer.echo(f"{finished} of {total} jobs were done before", err=True)

    def ended(self, end: JobEnd) -> None:
        self._done += 1
        typer.echo(f"{self._done}/{self._total} {ended_in_words(end)}", err=True)

    def running(self, states: Mapping[str, JobState | None], waiting: int) -> None:
        if time.monotonic() - self._told < _LINES_EVERY:
            return
        self._told = time.monotonic()
        for key, state in states.items():
            left = "" if state is None else left_in_words(state.seconds_left)
            words = "starting" if state is None else state.text
            typer.echo(one_line("  ".join(filter(None, ("  " + key, words, left)))), err=True)


class StudyBars(StudyWatcher):
    """A bar for all jobs, and one below it for each that runs."""

    def __init__(self, progress: Progress, workers: int) -> None:
        self._progress, self._workers = progress, workers
        self._all = TaskID(0)
        self._bars: dict[str, TaskID] = {}
        self._seconds: list[float] = []

    def begun(self, total: int, finished: int) -> None:
        self._all = self._progress.add_task(
            "jobs", total=total, completed=finished, left="", said=""
        )

    def ended(self, end: JobEnd) -> None:
        self._seconds.append(end.seconds)
        self._progress.console.print(escape(ended_in_words(end)), highlight=False)
        self._progress.update(self._all, advance=1)

    def running(self, states: Mapping[str, JobState | None], waiting: int) -> None:
        for key in [*self._bars.keys() - states.keys()]:
            self._progress.remove_task(self._bars.pop(key))
        for key, state in states.items():
            if key not in self._bars:
                bar = self._progress.add_task(escape(one_line(key)), total=None, left="", said="")
                self._bars[key] = bar
            if state is not None:
                self._progress.update(
                    self._bars[key],
                    total=int(state.total),
                    completed=int(state.done),
                    left=left_in_words(state.seconds_left),
                    said=escape(one_line(state.text)),
                )
        if self._seconds:
            each = sum(self._seconds) / len(self._seconds)
            rounds = (waiting + len(states) / 2) / min(self._workers, waiting + len(states) or 1)
            left = left_in_words(each * rounds)
            self._progress.update(self._all, left=f"about {left}" if left else "")


def ended_in_words(end: JobEnd) -> str:
    """Return what became of a job in one line: its accuracies, or what went wrong."""
    if end.wrong:
        return one_line(f"{end.job.key} FAILED: {end.wrong}")
    return one_line(f"{end.job.key}  {_accuracies(end.job)}  {end.seconds:.0f} s")


def _accuracies(job: Job) -> str:
    folder = job.results / job.commands[-1].folder
    return accuracies_in_words(records.read(folder)) if (folder / "run.json").is_file() else ""


def left_in_words(seconds: float | None) -> str:
    """Return ``1:05 left``; empty where nothing is known."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02} left" if hours else f"{minutes}:{rest:02} left"
