"""Clean accuracy that is no better than guessing: something is wrong before any attack.

Carlini et al. (2019, https://arxiv.org/abs/1902.06705) ask to state clean accuracy first.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import exp
from typing import ClassVar

from robustbench_cli.audit import CHECKS, Evidence, VerdictCheck
from robustbench_cli.audit._guessing import halfway
from robustbench_cli.core.registry import Number
from robustbench_cli.runs.trust import Finding, Severity


@CHECKS.register("chance")
@dataclass(frozen=True, kw_only=True)
class Chance(VerdictCheck):
    """The clean accuracy must be above that of guessing, by more than luck explains.

    Both tests are exact binomial ones.  Where guessing explains what is seen, but so few images
    were evaluated that a model halfway between guessing and perfect could look like that, too, it
    is only mentioned.
    """

    severity: ClassVar[Severity] = "error"
    clean: ClassVar[bool] = True
    says: ClassVar[str] = (
        "clean accuracy cannot be told from guessing ({images} of {of} right; guesses do as well "
        "with probability {value}): {what}"
    )

    level: Number = 0.05
    """The probability of doing as well by guessing from which there is a finding, and of doing as
    badly by a model halfway to perfect up to which it is more than a note."""

    def judge(self, evidence: Evidence) -> Iterator[Finding]:
        n, right, share = evidence.n, int(evidence.right.sum()), 1 / evidence.classes
        # Hoeffding's bound (1963) spares scipy, which is slow to import, wherever it is plain.
        if right > n * share and exp(-2 * n * (right / n - share) ** 2) <= self.level:
            return
        from scipy import special  # type: ignore[import-untyped]  # slow to import

        lucky = float(special.bdtrc(right - 1, n, share)) if right else 1.0
        if lucky <= self.level:
            return
        sure = float(special.bdtr(right, n, halfway(evidence.classes))) <= self.level
        yield self.finding(
            right,
            n,
            value=lucky,
            threshold=self.level,
            what=_ASKED if sure else "so few images do not decide it, evaluate more",
            severity="error" if sure else "info",
        )


_ASKED = (
    "are these the trained weights, is the normalisation part of the model (--normalize), are the "
    "labels in the model's order?"
)
