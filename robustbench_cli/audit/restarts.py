"""Restarts that disagree: later ones break much that the first one left standing.

Carlini et al. (2019, https://arxiv.org/abs/1902.06705): many restarts that each find something new
mean that the attack depends on luck, and that more of them would find more.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from robustbench_cli.audit import CHECKS, Evidence, JudgedAttack, Need, VerdictCheck
from robustbench_cli.core.registry import Number
from robustbench_cli.runs.trust import Finding, Severity


@CHECKS.register("restarts")
@dataclass(frozen=True, kw_only=True)
class Restarts(VerdictCheck):
    """The last restart of an attack should break few images more."""

    needs: ClassVar[tuple[Need, ...]] = ("gradients",)
    severity: ClassVar[Severity] = "warning"
    says: ClassVar[str] = (
        "the last restart of {what} broke {images} of the {of} images that the ones before it left "
        "standing: restarts disagree, take more"
    )

    share: Number = 0.1
    """The share of the images that were right."""
    least: int = 3
    """The smallest number of images that counts."""

    def judge(self, evidence: Evidence) -> Iterator[Finding]:
        right = int(evidence.right.sum())
        for each in (a for a in evidence.attacks if a.gradient_only and not evidence.random):
            last, numbers = _last_restart(each)
            late = int((each.broken & (each.by == last)).sum()) if numbers > 1 else 0
            if late >= self.least and late > self.share * right:
                of = int((each.broken & (each.by == last) | evidence.right & ~each.broken).sum())
                yield self.finding(
                    late,
                    of,
                    what=each.label,
                    value=late / right,
                    threshold=self.share,
                    attacks=[each.label],
                )


def _last_restart(attack: JudgedAttack) -> tuple[int, int]:
    """Return the position of an attack's last stage, and how many stages repeat its member."""
    members = np.array([stage.member for stage in attack.stages])
    return len(members) - 1, int((members == members[-1]).sum()) if len(members) else 0
