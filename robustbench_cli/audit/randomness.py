"""Randomised models: two passes over the same images give different answers.

The first check of AutoAttack's official code (Croce & Hein, 2020, https://arxiv.org/abs/2003.01690,
``checks.py``): five passes whose normalised logits are compared.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_cli.audit import CHECKS, ModelCheck, Probe
from robustbench_cli.evaluation.out_of_memory import in_parts
from robustbench_cli.runs.trust import Finding, Severity

RANDOM = 1e-4
"""The largest L2 distance between the normalised logits of two passes of one model, as in the
official code."""
ENOUGH_DRAWS = 10
"""Draws averaged per step from which an attack counts as made for a randomised model; AutoAttack's
version for randomised models takes 20."""


@CHECKS.register("randomness")
@dataclass(frozen=True, kw_only=True)
class Randomness(ModelCheck):
    """A randomised model's gradients are noisy: attacks must average them over several draws."""

    passes: ClassVar[float] = 3
    severity: ClassVar[Severity] = "warning"
    says: ClassVar[str] = (
        "the model is randomised: use --eot 20 or autoattack:version=rand; accuracies are means "
        "over fresh draws"
    )

    enough: int = ENOUGH_DRAWS
    """Draws per step from which an attack's number is not marked; our own choice."""

    def look(self, probe: Probe) -> Iterator[Finding]:
        if not probe.random:
            return
        m = len(probe.x)
        few = [
            label
            for label, stages in probe.stages.items()
            if min((s.attack.draws for s in stages), default=0) < self.enough
        ]
        yield self.finding(m, m, attacks=few, severity="warning" if few else "info")


def randomised(model: Callable[[Tensor], Tensor], x: Tensor, passes: int = 5) -> bool:
    """Return whether the model's logits differ from pass to pass, on images (B, C, H, W)."""
    with torch.no_grad():
        answers = [in_parts(model, x) for _ in range(passes)]
    units = [answer / (answer.norm(dim=1, keepdim=True) + 1e-10) for answer in answers]
    labels = [answer.argmax(1) for answer in answers]
    apart = max(float((units[0] - unit).norm(dim=1).max()) for unit in units[1:])
    return apart > RANDOM or any(not torch.equal(labels[0], label) for label in labels[1:])
