"""Models that let no gradient through: code outside of torch, or a graph that is cut.

What does not follow gradients is weaker (Athalye et al., 2018, https://arxiv.org/abs/1802.00420): a
model that cannot be differentiated is not robust for that.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from robustbench_cli.audit import CHECKS, ModelCheck, Probe
from robustbench_cli.runs.trust import Finding, Severity


@CHECKS.register("no-gradient")
@dataclass(frozen=True, kw_only=True)
class NoGradient(ModelCheck):
    """A gradient must lead from the logits to the images, or only weaker attacks can be tried."""

    severity: ClassVar[Severity] = "warning"
    says: ClassVar[str] = (
        "no gradient passes through the model, so the strongest attacks could not be tried: what "
        "stands under black-box ones may fall to an attack made for it (--attack adaptive)"
    )

    def look(self, probe: Probe) -> Iterator[Finding]:
        # Where images are crafted on another model, that one's gradients are followed.
        if not probe.differentiable and probe.stages:
            yield self.finding(len(probe.x), len(probe.x))
