"""The summary that an evaluation ends with: accuracies, notes, and the folder of its verdicts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from robustbench_cli.cli.budget_lines import budget_lines
from robustbench_cli.cli.console import rendered, table_console
from robustbench_cli.cli.exit_codes import ExitCode
from robustbench_cli.cli.target_summary import target_summary
from robustbench_cli.cli.widened_lines import widened_lines
from robustbench_cli.core.safe_text import one_line, printable
from robustbench_cli.core.threat_text import format_size
from robustbench_cli.report.columns import CLEAN, ball_label
from robustbench_cli.report.number_trust import (
    NumberTrust,
    attack_trust,
    certificate_trust,
    clean_trust,
    number_trusts,
    proven_trust,
    worst_trust,
)
from robustbench_cli.report.row_numbers import count
from robustbench_cli.report.trust_legend import finding_text, mark_meanings
from robustbench_cli.runs import records
from robustbench_cli.runs.outcomes import Outcome, Proof
from robustbench_cli.runs.records import unsound
from robustbench_cli.runs.trust import Finding

MOST_MEMBERS = 6
"""The most members of an attack that are all named, also those that broke nothing."""


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
        raise typer.Exit(code=ExitCode.UNSOUND)


def evaluation_table(run: records.Run, console: Console) -> str:
    """Return the accuracies of an evaluation as a table, with its heading and its notes.

    Args:
        console: whose width and colours the table is made for.
    """
    lines = _lines(run)
    known = {title for line in lines for title in line.about}
    titles = [title for title in _TITLES if title in known]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("attack", "accuracy", "right", "of", *titles):
        table.add_column(title, justify="left" if title in ("attack", "broken by") else "right")
    n = run.n or 0
    for line in lines:
        rest = (line.about.get(title, "") for title in titles)
        right = f"{round(count(line.share, n), 1):g}"
        marked = line.accuracy, line.trust.written(right) if not line.trust.withheld else ""
        table.add_row(escape(line.label), *marked, str(n), *map(escape, rest))
    searched = bool(run.search and (run.attacks or run.targeted))
    notes = [f"searched in {run.search}, judged in float32"] * searched
    if not clean_trust(run).withheld:
        notes += [f"{label}: {_extent(each)}" for label, each in run.certificates.items()]
    notes += _rejection(run)
    notes += budget_lines(run)
    notes += widened_lines(run)
    notes += trust_notes(run)
    notes += [f"note: {note}" for note in run.notes]
    return rendered(console, [Text(_heading(run)), table, *target_summary(run), *map(Text, notes)])


def trust_notes(run: records.Run) -> list[str]:
    """Return what checks found of an evaluation, its control, and what checks cost, a line each."""
    found = [
        f"{each.severity}: {finding_text(each)} ({_concerned(each)})"
        for each in sorted(run.findings, key=lambda each: _GRAVEST.index(each.severity))
    ]
    return [*mark_meanings(number_trusts(run)), *map(one_line, found), *_control(run), *_cost(run)]


def _concerned(finding: Finding) -> str:
    """Return the numbers that a finding concerns, in words."""
    attacks = ", ".join(finding.attacks) or "all attacks"
    return f"{attacks} and clean" if finding.clean and finding.attacks != [CLEAN] else attacks


def _rejection(run: records.Run) -> list[str]:
    """Return what counts where images may be rejected, and the operating point, a line each."""
    if (found := run.rejection) is None:
        return []
    share, trust = found.accepted_accuracy, clean_trust(run)
    accepted = "none are accepted" if share is None else f"{share:.2%} of the accepted are right"
    accepted = "what is right among the accepted is withheld" if trust.withheld else accepted
    lines = [
        f"{found.label}: clean = right and not rejected ({accepted}); under attack what was right "
        "when clean stands if it is right or rejected, only an undetected error breaks it"
    ]
    if found.threshold is not None:
        lines.append(
            f"the detector's threshold {found.threshold:.4g} flags {found.held_out_flagged:.2%} of "
            f"{found.held_out} test images that were not evaluated"
        )
    return list(map(one_line, lines))


_TITLES = ("95 % interval", "rejected", "distance", "fooled", "5-95 %", "seconds", "broken by")
"""The columns beside the accuracies, where there is something in them."""
_GRAVEST = ("error", "warning", "info")


def _control(run: records.Run) -> list[str]:
    """Return a line on the control, which counts in no attack's accuracy."""
    if (control := run.control) is None:
        return []
    each = ", ".join(f"{member} {broke}" for member, broke in control.broken_by.items())
    broken = f"{control.n - control.correct} of {control.n} images that stood"
    cost = f"{control.forwards} forward passes, {control.seconds:.1f} s"
    return [one_line(f"control (not counted): broke {broken} ({each}); {cost}")]


def _cost(run: records.Run) -> list[str]:
    """Return a line on the checks: how many, on how many images, at what cost."""
    if not run.settings.checks:
        return ["checks: none (--no-checks)"]
    if (checked := run.checked) is None:
        return []
    passes = f"{checked.forwards} forward and {checked.backwards} backward passes"
    number = len(checked.names)
    missing = ", ".join(checked.left_out)
    left_out = f"; left out, as the threat is no ball: {missing}" if missing else ""
    said = f"checks: {number} on {checked.images} images, {passes}, {checked.seconds:.1f} s"
    return [one_line(f"{said}{left_out}")]


@dataclass(frozen=True, kw_only=True)
class _Line:
    """One line of the table."""

    label: str
    share: float
    trust: NumberTrust
    about: Mapping[str, str] = field(default_factory=dict)
    """What stands beside the accuracy, by the title of the column."""

    @property
    def accuracy(self) -> str:
        """In per cent, with its mark."""
        found = self.trust.found
        return self.trust.written(f"{self.share:.2%}", "" if found is None else f"{found:.2%}")


def _several(run: records.Run) -> bool:
    """True if there is a worst case over attacks; the points of a sweep are one attack."""
    return len(run.attacks) > 1 and not run.settings.swept


def _lines(run: records.Run) -> list[_Line]:
    clean = clean_trust(run)
    counts = run.rejection if not clean.withheld else None
    rejected = _rejected(counts.clean_rejected) if counts else {}
    widened = run.widened
    about = rejected | _ends(widened.clean if widened else None, clean)
    lines = [_Line(label="clean", share=run.clean_accuracy or 0.0, trust=clean, about=about)]
    for label, each in run.attacks.items():
        trust = attack_trust(run, label)
        about = {} if trust.withheld else _about(each)
        about |= _ends(widened.attacks.get(label) if widened else None, trust)
        title = each.titled(label)
        lines.append(_Line(label=title, share=each.robust_accuracy, trust=trust, about=about))
    if _several(run):
        worst = run.worst_case_accuracy or 0.0
        trust = worst_trust(run)
        about = _ends(widened.worst if widened else None, trust)
        lines.append(_Line(label="all of them", share=worst, trust=trust, about=about))
    sure = certificate_trust(run) or NumberTrust(trust="sound")
    for label, proof in run.certificates.items():
        spent = {"seconds": f"{proof.seconds:.1f}"}
        proven = proven_trust(run, label) or sure
        lines.append(_Line(label=label, share=proof.accuracy, trust=sure, about=spent))
        lines += [
            _Line(label=f"  certified@{ball_label(each)}", share=each.accuracy, trust=proven)
            for each in proof.within
        ]
    return lines


def _ends(interval: tuple[float, float] | None, trust: NumberTrust) -> dict[str, str]:
    """Return an interval over all looks, by its title, where the number is shown."""
    if interval is None or trust.withheld:
        return {}
    return {_TITLES[0]: "{:.1f} to {:.1f}".format(*(100 * end for end in interval))}


def _heading(run: records.Run) -> str:
    threat, made_on = run.settings.threat, run.settings.source.id
    size = format_size(threat.norm, threat.eps)
    eps = "" if run.settings.swept == "eps" else f" eps {size}"
    mask = f", mask {threat.mask}" if threat.mask else ""
    crafted = f", images crafted on {made_on}" if made_on else ""
    kept = run.evaluated
    which = f" ({kept.rule}, epoch {kept.epoch})" if kept else ""
    model = f"{run.subject}{which}{run.settings.behind}"
    return f"{model} on {records.data_name(run)}, {threat.norm}{eps}{mask}{crafted}"


def _extent(proof: Proof) -> str:
    """Return a certificate's average radius, and how often it predicts or certifies nothing."""
    if proof.says_nothing:
        least = min(ball.radius for ball in proof.within if ball.radius > 0)
        return f"says nothing about this model: no image is proven to {proof.norm} {least:.4g}"
    median = "" if proof.median_radius is None else f" (median {proof.median_radius:g})"
    return (
        f"average certified radius {proof.norm} {proof.mean_radius:.4f}{median}; "
        f"no prediction for {proof.abstained:.2%}, nothing certified for {proof.uncertified:.2%}"
    )


def _shares(broken_by: Mapping[str, int]) -> str:
    """Return how many examples each member broke; of a long series only those that broke any."""
    long = len(broken_by) > MOST_MEMBERS
    shown = {member: broke for member, broke in broken_by.items() if broke or not long}
    idle = len(broken_by) - len(shown)
    more = [f"{idle} others 0"] if idle else []
    return ", ".join([*(f"{member} {broke}" for member, broke in shown.items()), *more])


def _about(outcome: Outcome) -> dict[str, str]:
    """Return what the table shows of an attack beside its accuracy, by the title of the column."""
    broken = _shares(outcome.broken_by)
    distance, spread = outcome.median_norm, outcome.spread
    rejected = {} if outcome.rejected is None else _rejected(outcome.rejected)
    return {
        **rejected,
        **({"distance": "∞" if distance is None else f"{distance:.4f}"} if outcome.minimal else {}),
        **({"fooled": f"{outcome.fooling_rate:.2%}"} if outcome.fooling_rate is not None else {}),
        **({"5-95 %": " to ".join(f"{100 * end:.2f}" for end in spread)} if spread else {}),
        "seconds": f"{outcome.seconds:.1f}",
        **({"broken by": broken} if broken else {}),
    }


def _rejected(share: float) -> dict[str, str]:
    return {"rejected": f"{share:.2%}"}
