"""Outputs that are probabilities or percentages, where attacks expect logits.

The losses of attacks apply a softmax of their own; on probabilities it is nearly flat.  The check
for probabilities is AutoAttack's (Croce & Hein, 2020, https://arxiv.org/abs/2003.01690).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from robustbench_cli.audit import CHECKS, ModelCheck, Probe
from robustbench_cli.core.registry import Number
from robustbench_cli.runs.trust import Finding, Severity

_TOTALS: Mapping[str, float] = {"probabilities": 1.0, "percentages": 100.0}


@CHECKS.register("outputs")
@dataclass(frozen=True, kw_only=True)
class Outputs(ModelCheck):
    """A model must return logits; log-probabilities are logits, and are only mentioned."""

    severity: ClassVar[Severity] = "warning"
    says: ClassVar[str] = "the model's outputs look like {what}"

    tolerance: Number = 1e-5
    """The largest relative error of the sums, as in the official code."""

    def look(self, probe: Probe) -> Iterator[Finding]:
        m = len(probe.x)
        for what, total in _TOTALS.items():
            if self._are_shares(probe.clean / total):
                yield self._said(m, f"{what}: it must return logits", "warning")
        if bool((probe.clean.logsumexp(1).abs() < self.tolerance).all()):
            yield self._said(m, "log-probabilities, which do no harm", "info")

    def _are_shares(self, outputs: Tensor) -> bool:
        low, high = float(outputs.min()), float(outputs.max())
        sums = float((outputs.sum(1) - 1).abs().max())
        return low > -self.tolerance and high < 1 + self.tolerance and sums < self.tolerance

    def _said(self, m: int, what: str, severity: Severity) -> Finding:
        return self.finding(m, m, what=what, severity=severity)
