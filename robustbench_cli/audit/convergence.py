"""Attacks that were still breaking images when they ended.

Carlini et al. (2019, https://arxiv.org/abs/1902.06705): more steps must not help any more.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from robustbench_cli.audit import CHECKS, Evidence, Need, VerdictCheck
from robustbench_cli.core.registry import Number
from robustbench_cli.runs.trust import Finding, Severity


@CHECKS.register("convergence")
@dataclass(frozen=True, kw_only=True)
class Convergence(VerdictCheck):
    """In its last quarter an attack should break few images more."""

    needs: ClassVar[tuple[Need, ...]] = ("gradients",)
    severity: ClassVar[Severity] = "warning"
    says: ClassVar[str] = (
        "{what} broke {images} images in the last quarter of its steps: it has not converged, take "
        "more steps"
    )

    share: Number = 0.1
    """The share of the images that were right from which a number is marked."""
    mentioned: Number = 0.03
    """The share from which it is mentioned."""
    steps: int = 8
    """The number of steps below which an attack is not expected to converge."""

    def judge(self, evidence: Evidence) -> Iterator[Finding]:
        right = int(evidence.right.sum())
        for each in evidence.attacks:
            if each.steps < self.steps or len(each.stages) > 1 or evidence.random or each.swept:
                continue
            late = int((each.broken & (each.step > 0.75 * each.steps)).sum())
            if late > self.mentioned * right and late > 2:
                yield self.finding(
                    late,
                    right,
                    what=each.label,
                    value=late / right,
                    threshold=self.share,
                    attacks=[each.label],
                    severity="warning" if late > self.share * right else "info",
                )
