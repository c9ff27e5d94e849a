"""A detector that lets no gradient through, so that gradient attacks cannot aim at it.

Carlini & Wagner (2017, https://arxiv.org/abs/1705.07263) broke ten detectors by attacks that aim at
the detector as well as at the model.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from robustbench_cli.audit import CHECKS, ModelCheck, Probe
from robustbench_cli.evaluation.detecting_model import ModelWithDetector
from robustbench_cli.runs.trust import Finding, Severity


@CHECKS.register("opaque-detector")
@dataclass(frozen=True, kw_only=True)
class OpaqueDetector(ModelCheck):
    """A gradient must pass through the detector beside the model if attacks use gradients alone."""

    severity: ClassVar[Severity] = "warning"
    says: ClassVar[str] = (
        "no gradient passes through the detector, so gradient attacks do not aim at it: add an "
        "attack that needs none, such as square"
    )

    def look(self, probe: Probe) -> Iterator[Finding]:
        if not isinstance(probe.model, ModelWithDetector) or probe.model.differentiable:
            return
        blind = [
            label
            for label, stages in probe.stages.items()
            if all(not stage.attack.black_box for stage in stages)
        ]
        if blind:
            yield self.finding(len(probe.x), len(probe.x), attacks=blind)
