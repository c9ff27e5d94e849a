"""Fast adaptive boundary attack, FAB (Croce & Hein, 2020), https://arxiv.org/abs/1907.02044.

It looks for the nearest adversarial image: each step projects onto the linearised decision
boundary with a bias towards the clean image, and adversarial iterates are moved back towards the
clean image (algorithm 1).
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from robustbench_cli.attacks import ATTACKS, Access, Observation, Output, State, Task
from robustbench_cli.attacks._fab import FABBase
from robustbench_cli.core import losses


@ATTACKS.register("fab", pattern=r"fab-?(?P<steps>\d+)")
@dataclass(frozen=True, kw_only=True)
class FAB(FABBase):
    """FAB towards the nearest linearised boundary of all wrong classes; one gradient per class.

    Expensive with many classes; ``fab-t`` takes one gradient per step.
    """

    access: ClassVar[Access] = "jacobian"

    def plane(self, observation: Observation, state: State, task: Task) -> tuple[Tensor, Tensor]:
        y, grad = task.y, observation.grad.flatten(2)
        rows = torch.arange(len(y), device=y.device)
        f = observation.logits - losses.picked(observation.logits, y)[:, None]
        w = grad - grad[rows, y][:, None]
        distance = f.abs() / (task.threat.dual(w) + 1e-12)
        nearest = distance.scatter(1, y[:, None], torch.inf).argmin(1)
        return w[rows, nearest], losses.picked(f, nearest)


@ATTACKS.register("fab-t", pattern=r"fab-t-?(?P<steps>\d+)")
@dataclass(frozen=True, kw_only=True)
class TargetedFAB(FABBase):
    """FAB towards the boundary with one wrong class at a time, the most likely ones in turn.

    The targeted version of the official AutoAttack code; one gradient per step.
    """

    targets: Annotated[int, Field(ge=1)] = 9
    """Number of target classes, by clean logit; all wrong classes if there are fewer."""

    def restarts_or_targets(self, classes: int) -> int:
        return self.restarts * min(self.targets, classes - 1)

    def restart(self, task: Task) -> int:
        return task.restart_or_target % self.restarts

    def begin(self, task: Task) -> State:
        return {
            **super().begin(task),
            "target": task.ranked(2 + task.restart_or_target // self.restarts),
        }

    def loss(self, out: Output, state: State, task: Task, step_index: Tensor) -> Tensor:
        return losses.lead(out.logits, task.y, state["target"])

    def plane(self, observation: Observation, state: State, task: Task) -> tuple[Tensor, Tensor]:
        return observation.grad.flatten(1), observation.loss
