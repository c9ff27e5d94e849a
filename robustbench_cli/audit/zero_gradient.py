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
    passes: ClassVar[float] = 3
    severity: ClassVar[Severity] = "warning"
    says: ClassVar[str] = (
        "{images} of {of} images have {what} at a random start: gradient attacks may be unreliable"
    )

    share: Number = 0.01
    """The share of images with a zero gradient that is not marked; of NaN and infinity, none."""

    def cost(self, stages: Sequence[Stage]) -> float:
        return self.passes + 2 * len(gradient_stages(stages))

    def look(self, probe: Probe) -> Iterator[Finding]:
        rows = probe.right.nonzero().squeeze(1)  # the others are not attacked
        if not len(rows) or not probe.stages:
            return
        finding = self._finding_of(probe.at_start.margin[rows], "of the margin")
        if finding is not None:
            yield finding
            return
        known: list[tuple[Stage, Tensor]] = []  # a sweep has the same attack at every radius
        for label, stages in probe.stages.items():
            grads = []
            for stage in gradient_stages(stages):
                found = [grad for seen, grad in known if seen == stage]
                grads += found or [first_gradient(stage, rows, probe)]
                known.append((stage, grads[-1]))
            # An attack is as good as the member whose gradient fails on the fewest images.
            failing = [int((_zero(grad) | _not_finite(grad)).sum()) for grad in grads]
            best = grads[failing.index(min(failing))] if grads else None
            if best is not None:
                finding = self._finding_of(best, f"of the loss of {label}", [label])
                if finding is not None:
                    yield finding

    def _finding_of(self, grad: Tensor, whose: str, attacks: Sequence[str] = ()) -> Finding | None:
        """Return what is wrong with a gradient (B, ...); None where it may be followed."""
        of = len(grad)
        if odd := int(_not_finite(grad).sum()):
            what = f"a gradient {whose} that is NaN or infinite"
            return self.finding(odd, of, what=what, attacks=attacks)
        zero = int(_zero(grad).sum())
        if zero <= self.share * of:
            return None
        return self.finding(
            zero,
            of,
            what=f"a zero gradient {whose}",
            value=zero / of,
            threshold=self.share,
            attacks=attacks,
        )


def _zero(grad: Tensor) -> Tensor:
    """Return whether each gradient (B, ...) is zero everywhere (B, bool)."""
    return ~grad.flatten(1).any(1)


def _not_finite(grad: Tensor) -> Tensor:
    """Return whether each gradient (B, ...) has an entry that is NaN or infinite (B, bool)."""
    return ~grad.flatten(1).isfinite().all(1)
