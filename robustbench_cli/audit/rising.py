"""Accuracy that rises with the radius: an attack that may do more must not do less.

Carlini et al. (2019, https://arxiv.org/abs/1902.06705): attack strength must grow with eps.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from robustbench_cli.audit import CHECKS, Evidence, Need, VerdictCheck
from robustbench_cli.core.registry import Number
from robustbench_cli.runs.trust import Finding, Severity


@CHECKS.register("rising")
@dataclass(frozen=True, kw_only=True)
class Rising(VerdictCheck):
    """What fell under a small radius of a sweep must fall under the largest one, attacked anew.

    The sweep itself counts such an example as broken at every larger radius.
    """

    needs: ClassVar[tuple[Need, ...]] = ("several attacks",)
    severity: ClassVar[Severity] = "warning"
    says: ClassVar[str] = (
        "{what}: {images} of {of} examples that fell under a smaller radius stand when they are "
        "attacked anew: accuracy rises with eps"
    )

    share: Number = 0.1
    """The share of the examples; below it, it is only mentioned."""
    least: int = 2
    """The smallest number of examples that counts."""

    def judge(self, evidence: Evidence) -> Iterator[Finding]:
        for each in evidence.again:
            if each.stood:
                strong = each.stood >= self.least and each.stood > self.share * each.tried
                yield self.finding(
                    each.stood,
                    each.tried,
                    what=each.label,
                    value=each.stood / each.tried,
                    threshold=self.share,
                    attacks=each.points,
                    severity="warning" if strong else "info",
                )
