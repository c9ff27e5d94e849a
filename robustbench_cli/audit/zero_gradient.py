"""Gradients that are zero, NaN or infinite where attacks begin.

AutoAttack's code looks at the logit ratio on clean images only (Croce & Hein, 2020,
https://arxiv.org/abs/2003.01690); here each attack's own loss is looked at where it starts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from robustbench_cli.attacks import Stage
from robustbench_cli.audit import CHECKS, ModelCheck, Need, Probe
from robustbench_cli.audit._first_gradient import first_gradient, gradient_stages
from robustbench_cli.core.registry import Number
from robustbench_cli.runs.trust import Finding, Severity


@CHECKS.register("zero-gradient")
@dataclass(frozen=True, kw_only=True)
class ZeroGradient(ModelCheck):
    """The loss that an attack follows must have a gradient where the attack starts.

    An attack of several members is marked if the gradient fails in every member that uses one.
    The margin's gradient is looked at as well, and concerns every attack that uses gradients.
    """

    needs: ClassVar[tuple[Need, ...]] = ("gradients",)
    passes: ClassVar[float] = 5
    severity: ClassVar[Severity] = "warning"
    says: ClassVar[str] = (
        "{images} of {of} images have {what} at a random start: gradient attacks may be unreliable"
    )

    share: Number = 0.01
    """The share of images with a zero gradient that is not marked; of NaN and infinity, none."""

    def look(self, probe: Probe) -> Iterator[Finding]:
        rows = probe.right.nonzero().squeeze(1)  # the others are not attacked
        if not len(rows) or not probe.stages:
            return
        of = len(rows)
        gradients = {
            "margin": probe.at_start.margin[rows],
            "cross-entropy": probe.at_start.cross_entropy[rows],
        }
        odd = max(int(_not_finite(grad).sum()) for grad in gradients.values())
        if odd:
            yield self.finding(odd, of, what="a gradient that is NaN or infinite")
            return
        zero = int(_zero(gradients["margin"]).sum())
        if zero > self.share * of:
            value = zero / of
            what = "a zero gradient of the margin"
            yield self.finding(zero, of, what=what, value=value, threshold=self.share)
            return
        for label, stages in probe.stages.items():
            worst = self._least_zero(probe, rows, stages)
            if worst > self.share * of:
                what = f"a zero gradient of the loss of {label}"
                yield self.finding(
                    worst, of, what=what, value=worst / of, threshold=self.share, attacks=[label]
                )

    def _least_zero(self, probe: Probe, rows: Tensor, stages: Sequence[Stage]) -> int:
        """Return the zero gradients of the member that has the fewest; 0 where none uses any."""
        grads = [first_gradient(stage, rows, probe) for stage in gradient_stages(stages)]
        return min((int(_zero(grad).sum()) for grad in grads), default=0)


def _zero(grad: Tensor) -> Tensor:
    """Return whether each gradient (B, ...) is zero everywhere (B, bool)."""
    return ~grad.flatten(1).any(1)


def _not_finite(grad: Tensor) -> Tensor:
    """Return whether each gradient (B, ...) has an entry that is NaN or infinite (B, bool)."""
    return ~grad.flatten(1).isfinite().all(1)
