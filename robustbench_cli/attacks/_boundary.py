"""What FAB and FAB-T have in common: from a point to the linearised boundary, and part way back.

Croce & Hein (2020), https://arxiv.org/abs/1907.02044, algorithm 1.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from robustbench_cli.attacks import IterativeAttack, Observation, State, Task
from robustbench_cli.attacks._planes import to_plane
from robustbench_cli.core.gradient_ascent import Steps
from robustbench_cli.core.registry import Number


@dataclass(frozen=True, kw_only=True)
class Boundary(IterativeAttack):
    """What both versions have in common; parameters as in AutoAttack."""

    steps: Steps = 100
    """Moves to the linearised boundary; each costs one or two passes of the model."""
    restarts: Annotated[int, Field(ge=1)] = 1
    """The first start is the clean image, later ones are random within eps / 2."""
    alpha_max: Annotated[Number, Field(gt=0, le=1)] = 0.1
    """At most so much weight for the way back from the clean image's own projection."""
    eta: Annotated[Number, Field(ge=1)] = 1.05
    """How far to overshoot the linearised boundary."""
    beta: Annotated[Number, Field(gt=0, lt=1)] = 0.9
    """How far to stay from the clean image when coming back."""
    within: bool = False
    """Whether an adversarial image inside the radius will do (as in AutoAttack), or the nearest
    one is wanted."""

    leaves_ball: ClassVar[bool] = True

    @property
    def minimal(self) -> bool:
        return not self.within

    def restarts_or_targets(self, classes: int) -> int:
        return self.restarts

    def restart(self, task: Task) -> int:
        """Which restart this lane is."""
        return task.restart_or_target

    def begin(self, task: Task) -> State:
        x, threat = task.x, task.threat
        if self.restart(task):
            away = threat.direction(x, task.noise.fork("start"))
            x = (x + 0.5 * threat.eps * away).clamp(0, 1)
        # Whether the point is one the attack moved to, and how often it has moved.
        return {"x": x.clone(), "moved": task.y < 0, "moves": task.y * 0}

    @abstractmethod
    def plane(self, observation: Observation, state: State, task: Task) -> tuple[Tensor, Tensor]:
        """The nearest linearised boundary: its normal (B, d), and how far f is from zero (B)."""

    def move(self, state: State, observation: Observation, task: Task) -> State:
        x, here, threat = task.x.flatten(1), state["x"].flatten(1), task.threat
        w, f = self.plane(observation, state, task)
        b = (w * here).sum(1) - f
        both = to_plane(torch.cat([here, x]), w.repeat(2, 1), b.repeat(2), threat.norm)
        near, far = both.chunk(2)
        length = threat.distance(both, torch.zeros_like(both)).clamp_min(1e-8)
        mine, clean = length.chunk(2)
        alpha = (mine / (mine + clean)).clamp(0, self.alpha_max)[:, None]
        there = (1 - alpha) * (here + self.eta * near) + alpha * (x + self.eta * far)
        back = state["moved"] & (observation.logits.argmax(1) != task.y)
        to = torch.where(back[:, None], x + self.beta * (here - x), there.clamp(0, 1))
        return {
            **state,
            "x": to.view_as(task.x),
            "moved": ~back,
            "moves": state["moves"] + (~back).long(),
        }

    def over(self, state: State, step_index: Tensor) -> Tensor:
        return state["moves"] >= self.steps
