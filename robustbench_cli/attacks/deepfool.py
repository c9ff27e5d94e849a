"""DeepFool (Moosavi-Dezfooli et al., 2016), https://arxiv.org/abs/1511.04599.

It linearises the model at the iterate, steps onto the nearest decision boundary of the linear
model, and repeats until the class changes (algorithm 2).
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

_MARGIN = 1e-4
"""Added to the length of each step, as in the authors' code, so that it crosses the boundary."""


@ATTACKS.register("deepfool", aliases=("df",), pattern=r"deepfool-?(?P<steps>\d+)")
@dataclass(frozen=True, kw_only=True)
class DeepFool(IterativeAttack):
    """Steps onto the nearest linearised decision boundary; one gradient per class and step.

    Unlike PGD it minimises the perturbation and needs no radius.  Defaults are those of the
    authors' code, which leaves the box [0, 1]; here each iterate is clipped to it, as in Foolbox,
    while the sum of the steps is not.  Their code leaves the predicted class, this leaves the true
    one: the two agree on every example that is correctly classified, and only those are attacked.
    """

    steps: Steps = 50
    """Most steps; two or three are common."""
    overshoot: Annotated[Number, Field(ge=0)] = 0.02
    """The sum of the steps is scaled by 1 + overshoot, so distances are longer by this share."""
    candidates: Annotated[int, Field(ge=2)] = 10
    """Number of classes considered, by clean logit, the true class included."""

    norms: ClassVar[tuple[str, ...]] = ("Linf", "L2")
    access: ClassVar[Access] = "jacobian"

    @property
    def no_target(self) -> str:
        return "it steps to the nearest boundary, whatever class is behind it"

    @property
    def planned_passes(self) -> int:
        return 2 * self.steps

    @property
    def minimal(self) -> bool:
        return True

    def begin(self, task: Task) -> State:
        total = torch.zeros_like(task.x)
        return {"x": task.x.clone(), "total": total, "fooled": task.y < 0}

    def wanted(self, task: Task) -> Tensor:
        true_first = task.clean.scatter(1, task.y[:, None], torch.inf)
        return true_first.argsort(dim=1, descending=True, stable=True)[:, : self.candidates]

    def move(self, state: State, observation: Observation, task: Task) -> State:
        x, y = state["x"], task.y
        logits = observation.logits.gather(1, self.wanted(task))
        gap, away = (
            (logits[:, 1:] - logits[:, :1]).abs(),
            observation.grad[:, 1:] - observation.grad[:, :1],
        )
        reach, nearest = (gap / task.threat.dual(away.flatten(2)).clamp_min(1e-12)).min(1)
        away = away[torch.arange(len(y), device=y.device), nearest]
        step = over(reach + _MARGIN, x) * task.threat.steepest(away)
        total = state["total"] + step.to(x)
        fooled = state["fooled"] | (observation.logits.argmax(1) != y)
        there = (task.x + (1 + self.overshoot) * total).clamp(0, 1)
        return {"x": torch.where(over(fooled, x), x, there), "total": total, "fooled": fooled}

    def over(self, state: State, step_index: Tensor) -> Tensor:
        return state["fooled"] | (step_index >= self.steps)
