"""Modules that stay in training mode although the model was put in evaluation mode.

Dropout then drops, and BatchNorm then normalises with the statistics of the batch at hand.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from robustbench_cli.audit import CHECKS, ModelCheck, Probe
from robustbench_cli.runs.trust import Finding, Severity

NAMED = 3
"""Modules that the sentence names."""


@CHECKS.register("evaluation-mode")
@dataclass(frozen=True, kw_only=True)
class EvaluationMode(ModelCheck):
    """After ``model.eval()`` no module may be in training mode."""

    severity: ClassVar[Severity] = "error"
    clean: ClassVar[bool] = True
    coupled: ClassVar[bool] = True
    says: ClassVar[str] = (
        "{images} of {of} modules stay in training mode when the model is put in evaluation mode "
        "({what})"
    )

    def look(self, probe: Probe) -> Iterator[Finding]:
        modules = dict(probe.model.named_modules())
        # A module without children, parameters and buffers behaves alike in both modes only if it
        # is none of torch's own that look at the flag; which those are is not known here.
        training = [name or "the model itself" for name, each in modules.items() if each.training]
        if training:
            what = ", ".join(training[:NAMED]) + ", ..." * (len(training) > NAMED)
            yield self.finding(len(training), len(modules), what=what)
