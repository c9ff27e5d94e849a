"""Input defenses that no attack went through (Tramer et al., 2020).

https://arxiv.org/abs/2002.08347: a defense counts for nothing until an attack was adapted to it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from robustbench_cli.attacks import Stage
from robustbench_cli.audit import CHECKS, ModelCheck, Probe
from robustbench_cli.models.defended import DefendedModel, defended_part
from robustbench_cli.runs.trust import Finding, Severity


@CHECKS.register("non-adaptive")
@dataclass(frozen=True, kw_only=True)
class NonAdaptive(ModelCheck):
    """An attack must follow every backward pass that input defenses in front of a model declare."""

    severity: ClassVar[Severity] = "warning"
    says: ClassVar[str] = "non-adaptive upper bound: {what}; use --attack adaptive"

    def look(self, probe: Probe) -> Iterator[Finding]:
        part, m = defended_part(probe.model), len(probe.x)
        if part is None:
            return
        ways = ", ".join(part.backwards)
        if probe.transferred:
            said = "the images were made for another model, not through its input defenses"
            yield self.finding(m, m, what=said)
        for label, stages in probe.stages.items():
            taken = _taken(part, stages)
            left = [each for each in part.backwards if each not in taken]
            said = f"no gradient was taken through the input defenses ({ways})"
            if taken:
                said = f"of the ways back through the input defenses ({ways}) not taken: "
                said += ", ".join(left)
            if left:
                yield self.finding(m, m, what=said, attacks=[label])


def _taken(part: DefendedModel, stages: Sequence[Stage]) -> set[str]:
    """The declared backward passes that stages follow: on the model itself it is the first."""
    own = part.backwards[0]
    return {
        getattr(stage.view, "backward", own) for stage in stages if stage.attack.access != "logits"
    }
