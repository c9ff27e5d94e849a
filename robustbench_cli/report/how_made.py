"""How a number of the main table was made: its evaluations, their attacks, seeds and versions."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from robustbench_cli.core.threat_text import format_threat
from robustbench_cli.report.audit_card import parameters_line, software_line
from robustbench_cli.report.number_trust import NumberTrust
from robustbench_cli.report.robustness_table import TableRow
from robustbench_cli.report.statistics import Cell, Measurement
from robustbench_cli.runs.records import Run, data_name
from robustbench_cli.runs.trust import Trust

TRUST_MEANINGS: Mapping[Trust, str] = {
    "sound": "sound: no check found anything",
    "upper bound": "an upper bound: something hides the truth, which is lower",
    "withheld": "withheld: the number means nothing",
    "unchecked": "not checked",
}


@dataclass(frozen=True, kw_only=True)
class MadeFrom:
    """One evaluation that a number is from, as pairs of what is told and the text."""

    run: str
    told: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class HowMade:
    """All there is to say of one number."""

    title: str
    """Row and column."""
    text: str
    """The number as the table has it."""
    told: tuple[tuple[str, str], ...]
    findings: tuple[tuple[str, str, str], ...]
    """Severity, check and message."""
    evaluations: tuple[MadeFrom, ...]


def how_made(row: TableRow, name: str, column: str, runs: Mapping[str, Run]) -> HowMade | None:
    """Return how the number in a column was made; None where the row has none.

    Args:
        name: what the row is called.
        runs: the records by id.
    """
    cell = row.cells.get(column)
    if cell is None:
        return None
    # A distance has no verdicts of its own: it is from the attack whose column stands before it.
    known = cell.origins or getattr(row.cells.get(column.removesuffix(" dist")), "origins", ())
    sources: dict[str, list[str]] = {}
    for origin in known:
        for run_id, label in origin.sources:
            sources.setdefault(run_id, []).append(label)
    return HowMade(
        title=f"{name}: {column}",
        text=cell.text,
        told=tuple(_told(row, cell)),
        findings=_findings(cell.trust),
        evaluations=tuple(
            MadeFrom(run=run_id, told=tuple(_evaluation(runs[run_id], labels)))
            for run_id, labels in sources.items()
            if run_id in runs
        ),
    )


def _told(row: TableRow, cell: Measurement) -> list[tuple[str, str]]:
    told = []
    if cell.trust is not None:
        told.append(("trust", TRUST_MEANINGS[cell.trust.trust]))
    shares = cell.values if isinstance(cell, Cell) else ()
    if len(shares) > 1:
        each = zip(row.seeds, shares, strict=False)
        named = ", ".join(f"seed {seed}: {100 * share:.2f} %" for seed, share in each)
        told.append(("each seed", named if not cell.partial else f"{len(shares)} of {cell.seeds}"))
        told.append(("deviation over seeds", f"{100 * (cell.std or 0):.2f} points"))
    if isinstance(cell, Cell) and cell.interval:
        low, high = (100 * end for end in cell.interval)
        how = "Wilson" if len(shares) == 1 else "images and seeds resampled"
        how = "over all looks" if cell.over_looks else how
        told.append(("95 % interval", f"{low:.1f} to {high:.1f} % ({how})"))
        told.append(("right answers", _right(cell)))
    return told


def _right(cell: Cell) -> str:
    return ", ".join(f"{right:g} of {cell.n}" for right in cell.correct)


def _findings(trust: NumberTrust | None) -> tuple[tuple[str, str, str], ...]:
    found = trust.findings if trust else ()
    return tuple(dict.fromkeys((each.severity, each.check, each.message) for each in found))


def _evaluation(run: Run, labels: list[str]) -> list[tuple[str, str]]:
    settings, threat = run.settings, run.settings.threat
    test = f" of {settings.data.test}" if settings.data.test else ""
    attacks = {
        f"attack {label}": parameters_line(run.attacks[label].params)
        for label in dict.fromkeys(labels)
        if label in run.attacks
    }
    told = {
        "command": shlex.join(["advbench", *run.command]),
        "data": f"{run.n}{test} test images of {data_name(run)} "
        f"(sha256 {settings.test_sha256[:12]})",
        "threat": format_threat(threat.norm, threat.eps, threat.mask),
        **attacks,
        "seed": f"{run.config.get('seed', 0)} of the attack, {run.seed} of the model",
        "model": parameters_line(settings.stated_model or {}),
        "input defenses": "; ".join(map(parameters_line, settings.defend.values())),
        "weights": f"sha256 {run.weights[:12]}" + (f", of {run.parent}" if run.parent else ""),
        "precision": f"searched in {run.search}, judged in float32" if run.search else "",
        "checks": ", ".join(run.checked.names) if run.checked else "none",
        "notes": "; ".join(run.notes),
        "software": software_line(run.environment),
        "made": f"{run.created:%Y-%m-%d %H:%M} UTC, {run.seconds:.0f} s",
    }
    return [(what, text) for what, text in told.items() if text]
