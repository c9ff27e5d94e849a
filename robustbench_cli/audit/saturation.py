"""Saturated or flat logits: the softmax of many losses works in units of one.

Carlini & Wagner (2016, https://arxiv.org/abs/1607.04311) broke defensive distillation, whose logits
are so large that the gradient of the cross-entropy underflows, by dividing them.  Where logits are
tiny the cross-entropy follows their mean instead of the strongest wrong one.
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


@CHECKS.register("saturation")
@dataclass(frozen=True, kw_only=True)
class Saturation(ModelCheck):
    """The gap between the two largest logits should be neither huge nor tiny.

    Where it is, attacks are marked whose first gradient points elsewhere once the logits are
    brought to a usual size: their loss depends on it.
    """

    needs: ClassVar[tuple[Need, ...]] = ("gradients",)
    severity: ClassVar[Severity] = "warning"
    says: ClassVar[str] = (
        "the two largest logits are {value} apart (median): the softmax is {what}, which misleads "
        "losses that depend on the size of the logits"
    )

    largest: Number = 100.0
    """The largest usual median gap: beyond it the cross-entropy's gradient underflows in float32;
    a net trained without an attack reaches 5, and 50 if its logits are multiplied by ten."""
    smallest: Number = 0.1
    """The smallest usual median gap; of the honest nets of our zoo the smallest is 0.27."""
    usual: Number = 5.0
    """The gap to which the logits are brought for comparison."""
    agreement: Number = 0.9
    """The share of the gradient's signs that must be the same."""

    def look(self, probe: Probe) -> Iterator[Finding]:
        top = probe.clean.topk(2, dim=1).values
        gap, m = float((top[:, 0] - top[:, 1]).median()), len(probe.x)
        if self.smallest <= gap <= self.largest:
            return
        what, threshold = ("flat", self.smallest) if gap < 1 else ("saturated", self.largest)
        rows, scale = probe.right.nonzero().squeeze(1), self.usual / max(gap, 1e-30)
        misled = [
            label
            for label, stages in probe.stages.items()
            if len(rows) and self._depends_on_scale(probe, rows, stages, scale)
        ]
        yield self.finding(
            m,
            m,
            value=gap,
            threshold=threshold,
            what=what,
            attacks=misled,
            severity="warning" if misled else "info",
        )

    def _depends_on_scale(
        self, probe: Probe, rows: Tensor, stages: Sequence[Stage], scale: float
    ) -> bool:
        """Return whether every member that follows gradients has another one on scaled logits."""
        agreements = []
        for stage in gradient_stages(stages):
            plain, scaled = (first_gradient(stage, rows, probe, by) for by in (1.0, scale))
            agreements.append(float((plain.sign() == scaled.sign()).float().mean()))
        return bool(agreements) and max(agreements) < self.agreement
