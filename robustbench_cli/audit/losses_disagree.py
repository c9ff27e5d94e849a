"""Attacks on different losses that leave very different accuracies.

Croce & Hein (2020, https://arxiv.org/abs/2003.01690) found defenses that stand against the
cross-entropy and fall to a loss on the logits.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from robustbench_cli.audit import CHECKS, Evidence, JudgedAttack, Need, VerdictCheck
from robustbench_cli.core.registry import Number
from robustbench_cli.runs.trust import Finding, Severity


@CHECKS.register("losses")
@dataclass(frozen=True, kw_only=True)
class LossesDisagree(VerdictCheck):
    """Gradient attacks of several steps must agree, whatever the loss they follow.

    On honest nets the cross-entropy and the margin differ by up to ten points.
    """

    needs: ClassVar[tuple[Need, ...]] = ("gradients", "several attacks")
    severity: ClassVar[Severity] = "warning"
    says: ClassVar[str] = "{what} broke {images} of the {of} images that it left standing"
    means: ClassVar[str] = "the result depends on the loss"

    points: Number = 15.0
    """The difference from which a number is marked, in percentage points."""
    mentioned: Number = 5.0
    """The difference from which it is mentioned."""

    def judge(self, evidence: Evidence) -> Iterator[Finding]:
        if evidence.random:
            return
        several = [a for a in evidence.attacks if a.steps >= 5 and not a.swept]
        broken = {a.label: _by_gradients(a) for a in several}
        for each in several:
            others = [
                (int((broken[b.label] & ~each.broken).sum()), b.label)
                for b in several
                if b is not each and b.eps == each.eps and b.steps <= 2 * each.steps
            ]
            extra, strongest = max(others, default=(0, ""))
            points = 100 * extra / evidence.n
            if points > self.mentioned:
                left = int((evidence.right & ~each.broken).sum())
                yield self.broken(
                    extra,
                    left,
                    marked=points > self.points,
                    what=f"{each.label}: {strongest}",
                    value=points,
                    threshold=self.points,
                    accuracy=(left - extra) / evidence.n,
                    attacks=[each.label],
                )


def _by_gradients(attack: JudgedAttack) -> np.ndarray:
    """Return the examples that stages which follow gradients broke, a mask (N)."""
    return np.asarray(attack.broken & ~np.isin(attack.by, attack.black_box))
