"""The progress of a run on standard error: bars on a terminal, plain lines elsewhere."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
    TimeRemainingColumn,
)

from robustbench_cli.cli.job_state_file import JobStateFile
from robustbench_cli.commands.display import Display
from robustbench_cli.commands.job_state import STATE_VARIABLE
from robustbench_cli.distributed import env
from robustbench_cli.training.trainer import HistoryRow, Watch

BARS = (
    TextColumn("{task.description}"),
    BarColumn(bar_width=24),
    MofNCompleteColumn(),
    TimeElapsedColumn(),
    TextColumn("left"),
    TimeRemainingColumn(),
    TextColumn("{task.fields[numbers]}"),
)
"""The columns of a progress bar; the field ``numbers`` holds the latest loss or accuracy."""
REFRESH = 0.5
"""Seconds between two updates of the running loss: reading it waits for the device."""


@contextmanager
def progress_display(quiet: bool) -> Iterator[Display]:
    """Give the display that fits: none if quiet, live bars on a terminal, plain lines elsewhere.

    Everything goes to standard error.  Of several processes only the main one shows anything.  A
    job of a study writes its progress to the study's file instead.
    """
    console = Console(stderr=True)
    state = os.environ.get(STATE_VARIABLE)
    if state and env.is_main_process():
        yield JobStateFile(Path(state))
    elif quiet or not env.is_main_process():
        yield Display()
    elif not console.is_terminal:
        yield ProgressLines()
    else:
        with Progress(*BARS, console=console, refresh_per_second=2) as progress:
            yield ProgressBars(progress)


class ProgressLines(Display):
    """One plain line per epoch and per attack, for logs."""

    def __init__(self) -> None:
        self._epochs = 0
        self._label, self._n = "", 0

    def note(self, text: str) -> None:
        typer.echo(text, err=True)

    def training(self, epochs: int, done: int) -> None:
        self._epochs = epochs

    def epoch(self, row: HistoryRow) -> None:
        typer.echo(f"epoch {row['epoch']}/{self._epochs}  {epoch_numbers(row)}", err=True)

    def fitting(self, member: str, done: int, of: int) -> None:
        if done == 1 or done == of or done % max(1, of // 10) == 0:
            typer.echo(f"{member}: fitted {done} of at most {of} rounds", err=True)

    def working(self, what: str, done: int, of: int) -> None:
        if done == of:
            typer.echo(f"{what}: {of} done", err=True)

    def judging(self, label: str, n: int, what: str = "robust accuracy") -> None:
        self._label, self._n = label, n

    def judged(self, done: int, accuracy: float) -> None:
        if done == self._n:
            typer.echo(f"{self._label}: {accuracy:.2%} of {done}", err=True)


class ProgressBars(Display):
    """Progress bars with the time left, for terminals."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: TaskID | None = None
        self._fit: TaskID | None = None
        self._epochs = self._done = 0
        self._looked = 0.0
        self._what = ""

    def note(self, text: str) -> None:
        self._progress.console.print(escape(text))

    def training(self, epochs: int, done: int) -> None:
        self._epochs, self._done = epochs, done
        self._task = self._progress.add_task("training", total=None, numbers="")

    def batch(self, watch: Watch) -> None:
        assert self._task is not None
        total = (self._epochs - self._done) * watch.batches
        self._progress.update(self._task, total=total, advance=1)
        now = self._progress.get_time()
        if now - self._looked < REFRESH:
            return
        self._looked = now
        shares = {"clean": watch.accuracy("clean"), "adv": watch.accuracy("adv")}
        words = [f"loss {watch.loss():.3f}"]
        words += [f"{name} {share:.1%}" for name, share in shares.items() if share is not None]
        self._progress.update(self._task, numbers="  ".join(words))

    def epoch(self, row: HistoryRow) -> None:
        self._progress.console.print(
            f"epoch {row['epoch']}/{self._epochs}  {epoch_numbers(row)}", highlight=False
        )

    def fitting(self, member: str, done: int, of: int) -> None:
        if self._fit is None:
            self._fit = self._progress.add_task(escape(f"fit {member}"), total=of, numbers="")
        self._progress.update(self._fit, completed=done, numbers="at most" * (done < of))

    def working(self, what: str, done: int, of: int) -> None:
        if not done:
            self._task = self._progress.add_task(escape(what), total=of, numbers="")
        assert self._task is not None
        self._progress.update(self._task, completed=done)

    def judging(self, label: str, n: int, what: str = "robust accuracy") -> None:
        self._what, self._fit = what, None
        self._task = self._progress.add_task(escape(label), total=n, numbers="")

    def judged(self, done: int, accuracy: float) -> None:
        assert self._task is not None
        so_far = f"{self._what} so far {accuracy:.2%}"
        self._progress.update(self._task, completed=done, numbers=so_far)


def epoch_numbers(row: HistoryRow) -> str:
    """Return an epoch's loss, and what was measured in evaluation mode, as text."""
    words = [f"loss {row['loss']:.4f}"]
    for name, title in (("train", "train"), ("val", "held out"), ("test", "TEST (oracle)")):
        clean, robust = row.get(f"{name}_clean"), row.get(f"{name}_robust")
        if clean is not None and robust is not None:
            words.append(f"{title} clean {clean:.1%} pgd10 {robust:.1%}")
    recall, spread = row.get("recall_at_1"), row.get("mean_distance")
    if recall is not None and spread is not None:
        words.append(f"R@1 {recall:.1%} mean distance {spread:.2f}")
    return "  ".join([*words, f"{row['seconds']:.1f}s"])
