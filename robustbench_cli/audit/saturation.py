"""Saturated or flat logits: the softmax of the losses works in units of one.

Carlini & Wagner (2016, https://arxiv.org/abs/1607.04311) broke defensive distillation, whose logits
are so large that the gradient of the cross-entropy underflows, by dividing them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from robustbench_cli.audit import CHECKS, ModelCheck, Probe
from robustbench_cli.runs.trust import Finding, Severity


@CHECKS.register("saturation")
@dataclass(frozen=True, kw_only=True)
class Saturation(ModelCheck):
    """The gap between the two largest logits should be neither huge nor tiny.

    It is a hint only: whether gradients vanish is what zero-gradient finds.
    """

    severity: ClassVar[Severity] = "info"
    says: ClassVar[str] = (
        "the two largest logits are {value} apart (median): the cross-entropy may be {what}"
    )

    largest: float = 100.0
    """The largest usual median gap: beyond it the cross-entropy's gradient underflows in float32;
    a net trained without an attack reaches 5, and 50 if its logits are multiplied by ten."""
    smallest: float = 1e-3
    """The smallest usual median gap."""

    def look(self, probe: Probe) -> Iterator[Finding]:
        top = probe.clean.topk(2, dim=1).values
        gap = float((top[:, 0] - top[:, 1]).median())
        m = len(probe.x)
        if gap > self.largest:
            yield self.finding(m, m, value=gap, threshold=self.largest, what="saturated")
        if gap < self.smallest:
            yield self.finding(m, m, value=gap, threshold=self.smallest, what="flat")
