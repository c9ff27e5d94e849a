"""Accuracy over a radius or over a number of steps: what a sweep measured, as lines."""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

from robustbench_cli.core.threat_text import format_threat
from robustbench_cli.report.columns import CLEAN, LAST
from robustbench_cli.report.number_trust import NumberTrust
from robustbench_cli.report.robustness_table import TableRow, finished, rows
from robustbench_cli.report.statistics import Cell
from robustbench_cli.report.withheld import WithheldNumber
from robustbench_cli.runs.records import Run

NOTHING_TO_DRAW = "every number of these sweeps is withheld: advbench show RUN says why"


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """An accuracy (share) at one value of what is swept."""

    at: float
    mean: float
    std: float | None
    """Over seeds; None for a single one."""
    trust: NumberTrust | None = None
    """How far it can be trusted; a number that means nothing is no point."""


@dataclass(frozen=True, kw_only=True)
class SweepCurve:
    """One model, or one training configuration over its seeds, under one attack."""

    model: str
    attack: str
    points: tuple[CurvePoint, ...]


@dataclass(frozen=True, kw_only=True)
class SweepPanel:
    """Curves that can be compared."""

    over: str
    """The parameter that is swept: ``eps`` or ``steps``."""
    dataset: str
    norm: str
    eps: float | None
    """The radius, unless it is swept."""
    n: int
    curves: tuple[SweepCurve, ...]
    mask: str = ""
    """The mask of the pixels that may change; empty: all of them."""
    withheld: int = 0
    """The numbers that are missing because they mean nothing."""
    rejects: str = ""
    """What rejects images; empty: nothing."""

    @property
    def title(self) -> str:
        """The setting that all curves share, in words."""
        plain = self.norm if self.eps is None else format_threat(self.norm, self.eps)
        threat = f"{plain}, mask {self.mask}" if self.mask else plain
        rejects = f", {self.rejects}" if self.rejects else ""
        return f"{self.dataset}, {threat}{rejects}, n {self.n}"


def panels(runs: Sequence[Run], *, dataset: str | None = None) -> list[SweepPanel]:
    """Every finished sweep, seeds joined; those over radii first.

    Args:
        runs: every record, training runs included, oldest first.
        dataset: on this data set only.
    """
    finished(runs)
    groups: dict[tuple[str, Hashable], list[TableRow]] = defaultdict(list)
    for over in ("eps", "steps"):
        of_this = [run for run in map(_regardless, runs) if run.settings.swept in ("", over)]
        for row in rows(of_this, keep=lambda run: bool(run.settings.swept)):
            groups[over, row.setting].append(row)
    return [
        _panel(over, found)
        for (over, _), found in groups.items()
        if dataset in (None, *found[0].datasets)
    ]


def _regardless(run: Run) -> Run:
    """A sweep over radii does not depend on the one that the evaluation was given."""
    if run.settings.swept != "eps":
        return run
    threat = {**run.settings.threat.table, "eps": 0.0}
    return replace(run, config={**run.config, "threat": threat})


def _panel(over: str, found: Sequence[TableRow]) -> SweepPanel:
    facts = found[0].facts
    eps = facts["eps"].raw
    defenses = [row.facts["defense"].text for row in found]
    return SweepPanel(
        over=over,
        dataset=facts["dataset"].text,
        norm=eps["norm"],
        eps=None if over == "eps" else eps["eps"],
        n=facts["n"].raw["n"],
        mask=eps.get("mask", ""),
        withheld=sum(
            isinstance(cell, WithheldNumber) and cell.at is not None and cell.at[0] == over
            for row in found
            for cell in row.cells.values()
        ),
        rejects=eps.get("rejects", ""),
        curves=tuple(
            curve
            for row, name in zip(found, defenses, strict=True)
            for curve in _curves(row, _name(row, defenses.count(name) > 1), over)
        ),
    )


def _name(row: TableRow, twice: bool) -> str:
    name, model = (row.facts[fact].text for fact in ("defense", "model"))
    return f"{name} {model}" if twice and model not in name else name


def _curves(row: TableRow, model: str, over: str) -> list[SweepCurve]:
    lines: dict[str, dict[float, Cell]] = defaultdict(dict)
    for cell in row.cells.values():
        if isinstance(cell, Cell) and cell.at and cell.at[0] == over:
            lines[cell.attack][cell.at[1]] = cell
    for attack, line in lines.items():
        clean = row.cells.get(CLEAN + LAST if attack.endswith(LAST) else CLEAN)
        if over == "eps" and isinstance(clean, Cell):
            line.setdefault(0.0, clean)
    return [
        SweepCurve(
            model=model,
            attack=attack,
            points=tuple(
                CurvePoint(at=at, mean=cell.mean, std=cell.std, trust=cell.trust)
                for at, cell in sorted(line.items())
            ),
        )
        for attack, line in lines.items()
    ]
