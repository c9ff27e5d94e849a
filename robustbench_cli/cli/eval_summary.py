"""The summary that an evaluation ends with: accuracies, notes, and the folder of its verdicts."""

from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from robustbench_cli.cli.console import rendered, table_console
from robustbench_cli.core.safe_text import printable
from robustbench_cli.core.threat_text import format_eps
from robustbench_cli.report.columns import ball_label
from robustbench_cli.report.robustness_table import count
from robustbench_cli.runs import records
from robustbench_cli.runs.outcomes import Outcome, Proof
from robustbench_cli.runs.records import unsound

UNSOUND = 3
"""The exit code of ``--strict`` where a number is not sound."""


def print_evaluation(folder: Path) -> None:
    """Print the accuracies of an evaluation, its notes, and the folder of its files."""
    typer.echo(evaluation_table(records.read(folder), table_console()), nl=False)
    typer.echo(folder)


def refuse_unsound(folder: Path) -> None:
    """Say on standard error which numbers of an evaluation are not sound, and end with code 3.

    Raises:
        typer.Exit: with code 3; not raised where all numbers are sound.
    """
    if doubtful := unsound(records.read(folder)):
        said = ", ".join(f"{name} ({trust})" for name, trust in doubtful.items())
        typer.echo(f"advbench: not sound: {printable(said)}", err=True)
        raise typer.Exit(code=UNSOUND)


def evaluation_table(run: records.Run, console: Console) -> str:
    """Return the accuracies of an evaluation as a table, with its heading and its notes.

    Args:
        console: whose width and colours the table is made for.
    """
    n = run.n or 0
    several = (
        len(run.attacks) > 1 and not run.settings.swept
    )  # the points of a sweep are one attack
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
    return rendered(console, [Text(_heading(run)), table, *notes])


def _heading(run: records.Run) -> str:
    threat, made_on = run.settings.threat, run.settings.source.id
    eps = "" if run.settings.swept == "eps" else f" eps {format_eps(threat.eps)}"
    mask = f", mask {threat.mask}" if threat.mask else ""
    crafted = f", images crafted on {made_on}" if made_on else ""
    kept = run.evaluated
    which = f" ({kept.rule}, epoch {kept.epoch})" if kept else ""
    return f"{run.subject}{which} on {records.data_name(run)}, {threat.norm}{eps}{mask}{crafted}"


def _extent(proof: Proof) -> str:
    """Return a certificate's average radius, and how often it predicts or certifies nothing."""
    return (
        f"average certified radius {proof.norm} {proof.mean_radius:.4f}; "
        f"no prediction for {proof.abstained:.2%}, nothing certified for {proof.uncertified:.2%}"
    )


def _about(outcome: Outcome) -> dict[str, str]:
    """Return what the table shows of an attack beside its accuracy, by the title of the column."""
    broken = ", ".join(f"{member} {broke}" for member, broke in outcome.broken_by.items())
    distance, spread = outcome.median_norm, outcome.spread
    return {
        **({"distance": "∞" if distance is None else f"{distance:.4f}"} if outcome.minimal else {}),
        **({"5-95 %": " to ".join(f"{100 * end:.2f}" for end in spread)} if spread else {}),
        "seconds": f"{outcome.seconds:.1f}",
        **({"broken by": broken} if broken else {}),
    }
