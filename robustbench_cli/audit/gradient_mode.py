"""Models that answer differently when a gradient is wanted.

Attacks then climb another function than the one that decides, whether by intention or by a branch
on ``torch.is_grad_enabled()`` or ``x.requires_grad`` that was meant to save memory.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from robustbench_cli.audit import CHECKS, ModelCheck, Need, Probe
from robustbench_cli.audit._difference import NO_DIFFERENCE, largest_difference
from robustbench_cli.core.registry import Number
from robustbench_cli.runs.trust import Finding, Severity


@CHECKS.register("gradient-mode")
@dataclass(frozen=True, kw_only=True)
class GradientMode(ModelCheck):
    """The logits must be the same with and without a gradient."""

    needs: ClassVar[tuple[Need, ...]] = ("gradients",)
    severity: ClassVar[Severity] = "warning"
    says: ClassVar[str] = (
        "the model answers differently when a gradient is wanted ({images} of {of} images differ, "
        "by up to {value} of the logits' range): attacks climb another function"
    )

    threshold: Number = NO_DIFFERENCE
    """The largest difference, as a fraction of the range of the logits, as for neighbours."""

    def look(self, probe: Probe) -> Iterator[Finding]:
        if probe.random or probe.steady:
            return
        apart = largest_difference(probe.at_start.logits, probe.start_logits)
        differ = int((apart > self.threshold).sum())
        if differ:
            most = float(apart.max())
            yield self.finding(differ, len(apart), value=most, threshold=self.threshold)
