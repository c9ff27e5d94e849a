"""DeepFool (Moosavi-Dezfooli et al., 2016), https://arxiv.org/abs/1511.04599.

It steps onto the nearest boundary of the linearised model until the class changes.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from robustbench_cli.attacks import ATTACKS, Access, IterativeAttack, Observation, State, Task
from robustbench_cli.core.gradient_ascent import Steps
from robustbench_cli.core.registry import Number
from robustbench_cli.core.threat import over

BEYOND = 1e-4
"""Added to the length of every step, so that none ends on the boundary itself."""


@ATTACKS.register("deepfool", aliases=("df",), pattern=r"deepfool-?(?P<steps>\d+)")
@dataclass(frozen=True, kw_only=True)
class DeepFool(IterativeAttack):
    """Onto the nearest linearised boundary, again and again; one gradient per candidate and step.

    The authors' code leaves the box [0, 1]; here every iterate is clipped to it, as in Foolbox,
    while the sum of the steps is not.  It also goes away from the predicted class, which for an
    example that is worth attacking is the true one.
    """

    steps: Steps = 50
    """At most so many steps; two or three are common."""
    overshoot: Annotated[Number, Field(ge=0)] = 0.02
    """The sum of the steps is stretched by this share, so norms come out that much longer."""
    candidates: Annotated[int, Field(ge=2)] = 10
    """Only the boundaries with so many classes (by clean logit, the true one included) count."""

    norms: ClassVar[tuple[str, ...]] = ("Linf", "L2")
    access: ClassVar[Access] = "jacobian"

    @property
    def minimal(self) -> bool:
        return True

    def begin(self, task: Task) -> State:
        nowhere = torch.zeros_like(task.x)
        return {"x": task.x.clone(), "total": nowhere, "fooled": task.y < 0}

    def wanted(self, task: Task) -> Tensor:
        first = task.clean.scatter(1, task.y[:, None], torch.inf)  # the true class leads
        return first.argsort(dim=1, descending=True, stable=True)[:, : self.candidates]

    def move(self, state: State, observation: Observation, task: Task) -> State:
        x, y = state["x"], task.y
        logits = observation.logits.gather(1, self.wanted(task))
        gap, away = (
            (logits[:, 1:] - logits[:, :1]).abs(),
            observation.grad[:, 1:] - observation.grad[:, :1],
        )
        reach, nearest = (gap / task.threat.dual(away.flatten(2)).clamp_min(1e-12)).min(1)
        away = away[torch.arange(len(y), device=y.device), nearest]
        step = over(reach + BEYOND, x) * task.threat.steepest(away)
        total = state["total"] + step.to(x)
        fooled = state["fooled"] | (observation.logits.argmax(1) != y)
        there = (task.x + (1 + self.overshoot) * total).clamp(0, 1)
        return {"x": torch.where(over(fooled, x), x, there), "total": total, "fooled": fooled}

    def over(self, state: State, step_index: Tensor) -> Tensor:
        return state["fooled"] | (step_index >= self.steps)
