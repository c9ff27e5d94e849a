"""Dynamic defenses: models that compute gradients while they classify.

The check is AutoAttack's (Croce & Hein, 2020, https://arxiv.org/abs/2003.01690), made through
torch's autograd engine instead of ``sys.settrace``; why such models need an attack of their own:
Croce et al. (2022, https://arxiv.org/abs/2202.13711).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from robustbench_cli.audit import CHECKS, ModelCheck, Probe
from robustbench_cli.runs.trust import Finding, Severity


@CHECKS.register("dynamic")
@dataclass(frozen=True, kw_only=True)
class Dynamic(ModelCheck):
    """A forward pass must not run autograd."""

    passes: ClassVar[float] = 1
    severity: ClassVar[Severity] = "warning"
    says: ClassVar[str] = (
        "the model computes gradients in its forward pass (a dynamic defense): attacks that "
        "do not know of it may be too weak, an adaptive attack is needed"
    )

    def look(self, probe: Probe) -> Iterator[Finding]:
        if probe.autograd_runs:
            yield self.finding(len(probe.x), len(probe.x), value=probe.autograd_runs)
