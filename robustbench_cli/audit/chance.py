"""Clean accuracy that is no better than guessing: something is wrong before any attack.

Carlini et al. (2019, https://arxiv.org/abs/1902.06705) ask to state clean accuracy first.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt
from typing import ClassVar

from robustbench_cli.audit import CHECKS, Evidence, VerdictCheck
from robustbench_cli.core.registry import Number
from robustbench_cli.runs.trust import Finding, Severity


@CHECKS.register("chance")
@dataclass(frozen=True, kw_only=True)
class Chance(VerdictCheck):
    """The clean accuracy must be above that of guessing, by more than luck explains."""

    severity: ClassVar[Severity] = "error"
    says: ClassVar[str] = (
        "clean accuracy is at chance ({images} of {of}): are these the trained weights, is the "
        "normalisation part of the model (--normalize), are the labels in the model's order?"
    )

    deviations: Number = 1.645
    """Standard deviations of the number of lucky guesses: one test in twenty guesses better."""
    least: int = 30
    """The number of images below which nothing is said."""

    def judge(self, evidence: Evidence) -> Iterator[Finding]:
        n, right, share = evidence.n, int(evidence.right.sum()), 1 / evidence.classes
        limit = n * share + self.deviations * sqrt(n * share * (1 - share))
        if n >= self.least and right <= limit:
            yield self.finding(right, n, value=right / n, threshold=limit / n)
