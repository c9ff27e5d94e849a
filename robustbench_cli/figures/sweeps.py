"""Robust accuracy over the radius and over the number of steps (Zhang & Wang, 2019), figure 3.

https://arxiv.org/abs/1907.10764
"""

from abc import abstractmethod
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.threat_text import format_eps
from robustbench_cli.figures import FIGURES, Figure, Material, Painter, few
from robustbench_cli.figures._sweep_plot import paint_sweeps
from robustbench_cli.report.robustness_table import finished
from robustbench_cli.report.seed_groups import of_kind
from robustbench_cli.report.sweep_curves import NOTHING_TO_DRAW, panels
from robustbench_cli.runs.records import Run


@dataclass(frozen=True, kw_only=True)
class Sweep(Figure):
    """Base of figures of recorded sweeps; without named runs, of all of them."""

    over: ClassVar[str]
    """The swept quantity: ``eps`` or ``steps``."""

    def prepare(self, material: Material) -> Painter:
        recorded = material.recorded()
        # Training runs are kept: they give the names of evaluations and group them by seed.
        kept = [run for run in recorded.runs if run.kind != "eval" or recorded.selects(run)]
        found = [panel for panel in panels(kept) if panel.over == self.over]
        if not found:
            raise UserError(self._lacking(*recorded.named))
        if not any(panel.curves for panel in found):
            raise UserError(NOTHING_TO_DRAW)
        shown = [run for run in finished(kept) if run.settings.swept == self.over]
        for run in recorded.named:
            if run.id not in {name for each in shown for name in (each.id, each.parent)}:
                material.feedback.note(self._lacking(run))
        return partial(paint_sweeps, found)

    def _lacking(self, *named: Run) -> str:
        """Return the message that there is no such sweep, with a command that records one."""
        of = f" of {few([run.id for run in named])}" if named else ""
        run = next(iter(of_kind(named, "train")), None)
        which = f" --run {run.id}" if run else ""
        return (
            f"no finished sweep over {self.over}{of}; record one: "
            f"advbench eval{which} {self.example(run)}"
        )

    @abstractmethod
    def example(self, run: Run | None) -> str:
        """Return options of an evaluation that records such a sweep."""


@FIGURES.register("eps")
@dataclass(frozen=True, kw_only=True)
class OverEps(Sweep):
    """Robust accuracy over the radius, from recorded sweeps; without named runs, from all."""

    over: ClassVar[str] = "eps"

    def example(self, run: Run | None) -> str:
        eps = run.settings.threat.eps if run else 8 / 255
        return f"--attack pgd100 --sweep eps=0,{format_eps(eps / 4)},...,{format_eps(2 * eps)}"


@FIGURES.register("steps")
@dataclass(frozen=True, kw_only=True)
class OverSteps(Sweep):
    """Robust accuracy over the number of attack steps, from recorded sweeps; without named runs,
    from all."""

    over: ClassVar[str] = "steps"

    def example(self, run: Run | None) -> str:
        return "--attack pgd --sweep steps=1,2,5,10,20,50,100"
