"""Attacks whose steps together do not reach the border of the ball.

A mistake of many published evaluations (Carlini et al., 2019, https://arxiv.org/abs/1902.06705: the
step size times the number of steps must exceed the radius).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from robustbench_cli.attacks import Iterated
from robustbench_cli.audit import CHECKS, Evidence, Need, VerdictCheck
from robustbench_cli.core.registry import Number
from robustbench_cli.runs.trust import Finding, Severity


@CHECKS.register("reach")
@dataclass(frozen=True, kw_only=True)
class Reach(VerdictCheck):
    """The steps of an attack must be able to cross from the clean image to the border."""

    needs: ClassVar[tuple[Need, ...]] = ("gradients",)
    severity: ClassVar[Severity] = "warning"
    says: ClassVar[str] = (
        "all steps of {what} together are {value} times as long as the way from the clean image "
        "to the border: it cannot get there; take more or longer steps"
    )

    shortest: Number = 0.99
    """The smallest length of all steps together, as a fraction of eps; 0.99 leaves room for
    rounding, as with three steps of 0.33."""

    def judge(self, evidence: Evidence) -> Iterator[Finding]:
        for each in evidence.attacks:
            lengths = [
                stage.attack.steps * stage.attack.stride
                for stage in each.stages
                if isinstance(stage.attack, Iterated)
            ]
            if lengths and len(lengths) == len(each.stages) and max(lengths) < self.shortest:
                yield self.finding(
                    evidence.n,
                    evidence.n,
                    what=each.label,
                    value=max(lengths),
                    threshold=self.shortest,
                    attacks=[each.label],
                )
