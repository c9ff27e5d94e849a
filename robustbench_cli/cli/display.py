"""What a person sees while a run goes on: bars on a terminal, plain lines elsewhere."""

import itertools
from collections.abc import Callable, Iterator
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
from rich.table import Table
from rich.text import Text

from robustbench_cli.cli.listing import drawn, screen
from robustbench_cli.commands.display import Display
from robustbench_cli.core.registry import radius
from robustbench_cli.distributed import env
from robustbench_cli.report.columns import ball_label, source, swept
from robustbench_cli.report.robustness_table import count
from robustbench_cli.runs import records
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
"""A bar with the time left; ``numbers`` is what else there is to say."""
REFRESH = 0.5
"""Seconds between looks at the running loss; each look waits for the device."""


@contextmanager
def shown(quiet: bool) -> Iterator[Display]:
    """The display that fits: none, lines, or live bars on standard error."""
    console = Console(stderr=True)
    if quiet or not env.is_main_process():
        yield Display()
    elif not console.is_terminal:
        yield Lines()
    else:
        with Progress(*BARS, console=console, refresh_per_second=2) as progress:
            yield Live(progress)


class Lines(Display):
    """One plain line per epoch and per attack, for logs."""

    def __init__(self) -> None:
        self._epochs = 0
        self._label, self._n = "", 0

    def note(self, text: str) -> None:
        typer.echo(text, err=True)

    def training(self, epochs: int, done: int) -> None:
        self._epochs = epochs

    def epoch(self, row: HistoryRow) -> None:
        typer.echo(f"epoch {row['epoch']}/{self._epochs}  {numbers(row)}", err=True)

    def judging(self, label: str, n: int, what: str = "robust accuracy") -> None:
        self._label, self._n = label, n

    def judged(self, done: int, accuracy: float) -> None:
        if done == self._n:
            typer.echo(f"{self._label}: {accuracy:.2%} of {done}", err=True)


class Live(Display):
    """Bars with the time left."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: TaskID | None = None
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
            f"epoch {row['epoch']}/{self._epochs}  {numbers(row)}", highlight=False
        )

    def judging(self, label: str, n: int, what: str = "robust accuracy") -> None:
        self._what = what
        self._task = self._progress.add_task(escape(label), total=n, numbers="")

    def judged(self, done: int, accuracy: float) -> None:
        assert self._task is not None
        so_far = f"{self._what} so far {accuracy:.2%}"
        self._progress.update(self._task, completed=done, numbers=so_far)


@contextmanager
def counted(total: int, quiet: bool) -> Iterator[Callable[[str, bool], None]]:
    """Tell of jobs as they end, with the time left on a terminal; each by name, well or not."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        done = itertools.count(1)

        def line(name: str, well: bool) -> None:
            if not quiet:
                typer.echo(f"{next(done)}/{total} {name}{'' if well else ' FAILED'}", err=True)

        yield line
        return
    with Progress(*BARS, console=console, refresh_per_second=2) as progress:
        task = progress.add_task("jobs", total=total, numbers="")

        def bar(name: str, well: bool) -> None:
            progress.update(task, advance=1, numbers=escape(name))
            if not well:
                progress.console.print(f"{escape(name)} failed")

        yield bar


def numbers(row: HistoryRow) -> str:
    """An epoch in words: loss, then clean / robust accuracy in evaluation mode."""
    words = [f"loss {row['loss']:.4f}"]
    for name, title in (("train", "train"), ("val", "held out"), ("test", "TEST (oracle)")):
        clean, robust = row.get(f"{name}_clean"), row.get(f"{name}_robust")
        if clean is not None and robust is not None:
            words.append(f"{title} clean {clean:.1%} pgd10 {robust:.1%}")
    return "  ".join([*words, f"{row['seconds']:.1f}s"])


def print_outcomes(folder: Path) -> None:
    """Print the accuracies of an evaluation, its notes, and the folder of its files."""
    typer.echo(outcomes_table(records.read(folder), screen()), nl=False)
    typer.echo(folder)


def outcomes_table(run: records.Run, console: Console) -> str:
    """Return the accuracies of an evaluation as a table, with its heading and its notes.

    Args:
        console: whose width and colours the table is made for.
    """
    n = run.n or 0
    several = len(run.attacks) > 1 and not swept(run)  # the points of a sweep are one attack
    shares: list[tuple[str, float, dict[str, str]]] = [("clean", run.clean_accuracy or 0.0, {})]
    shares += [(label, each.robust_accuracy, _about(each)) for label, each in run.attacks.items()]
    shares += [("all of them", run.worst_case_accuracy or 0.0, {})] * several
    for label, proof in run.certificates.items():
        shares.append((label, proof.accuracy, {"seconds": f"{proof.seconds:.1f}"}))
        shares += [(f"  certified@{ball_label(each)}", each.accuracy, {}) for each in proof.within]
    known = {title for _, _, about in shares for title in about}
    titles = [title for title in ("distance", "5-95 %", "seconds", "broken by") if title in known]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("attack", "accuracy", "right", "of", *titles):
        table.add_column(title, justify="left" if title in ("attack", "broken by") else "right")
    for label, share, about in shares:
        rest = (about.get(title, "") for title in titles)
        right = f"{round(count(share, n), 1):g}"
        table.add_row(escape(label), f"{share:.2%}", right, str(n), *map(escape, rest))
    searched = bool(run.search and run.attacks)
    notes = [Text(f"searched in {run.search}, judged in float32")] * searched
    notes += [Text(f"{label}: {_extent(each)}") for label, each in run.certificates.items()]
    notes += [Text(f"note: {note}") for note in run.notes]
    return drawn(console, [Text(_heading(run)), table, *notes])


def _heading(run: records.Run) -> str:
    threat, made_on = run.config["threat"], source(run).get("id")
    eps = "" if swept(run) == "eps" else f" eps {radius(threat['eps'])}"
    mask = f", mask {threat['mask']}" if "mask" in threat else ""
    crafted = f", images crafted on {made_on}" if made_on else ""
    kept = run.evaluated
    which = f" ({kept.rule}, epoch {kept.epoch})" if kept else ""
    return f"{run.subject}{which} on {records.data_name(run)}, {threat['norm']}{eps}{mask}{crafted}"


def _extent(proof: records.Proof) -> str:
    """How far a certificate goes on the average, and how often it says nothing."""
    return (
        f"average certified radius {proof.norm} {proof.mean_radius:.4f}; "
        f"no prediction for {proof.abstained:.2%}, nothing certified for {proof.uncertified:.2%}"
    )


def _about(outcome: records.Outcome) -> dict[str, str]:
    """What else is known of an attack, under the title of its column."""
    broken = ", ".join(f"{member} {broke}" for member, broke in outcome.broken_by.items())
    distance, spread = outcome.median_norm, outcome.spread
    return {
        **({"distance": "∞" if distance is None else f"{distance:.4f}"} if outcome.minimal else {}),
        **({"5-95 %": " to ".join(f"{100 * end:.2f}" for end in spread)} if spread else {}),
        "seconds": f"{outcome.seconds:.1f}",
        **({"broken by": broken} if broken else {}),
    }
