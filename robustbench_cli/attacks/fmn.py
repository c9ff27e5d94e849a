"""Fast minimum-norm attack, FMN (Pintor et al., 2021), https://arxiv.org/abs/2102.12827.

Projected gradient steps in a ball whose radius is adapted to the distance of the decision boundary
(algorithm 1).
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from robustbench_cli.attacks import ATTACKS, IterativeAttack, Observation, Output, State, Task
from robustbench_cli.core import losses
from robustbench_cli.core.decoupled_step import cosine_decay, l2_norms
from robustbench_cli.core.gradient_ascent import Steps
from robustbench_cli.core.registry import Number
from robustbench_cli.core.threat import onto_l1, over


@ATTACKS.register("fmn", pattern=r"fmn-?(?P<steps>\d+)")
@dataclass(frozen=True, kw_only=True)
class FMN(IterativeAttack):
    """Normalised gradient steps on the margin, projected onto a ball whose radius is adapted.

    The radius shrinks at adversarial iterates and grows at others.  Unlike PGD the attack
    minimises the norm and needs no radius of the threat.

    The authors' code takes 10 steps, which Foolbox found too few; 100 is Foolbox's default and
    this one's.  Under L2 the projection only ever shrinks a perturbation, as in the paper (that of
    Foolbox 3.3.4 does nothing, that of adversarial-library also stretches).  Under L1 it projects
    onto ball and box together, where the paper projects onto the ball and then clips, which
    leaves much smaller perturbations.
    """

    steps: Steps = 100
    """Gradient steps."""
    step: Annotated[Number, Field(gt=0)] = 1.0
    """L2 length of the first step; annealed to a hundredth of it along half a cosine."""
    gamma: Annotated[Number, Field(gt=0, lt=1)] = 0.05
    """Share by which the radius first shrinks or grows; annealed to a fiftieth of it."""

    @property
    def planned_passes(self) -> int:
        return 2 * self.steps

    @property
    def minimal(self) -> bool:
        return True

    def begin(self, task: Task) -> State:
        zero = task.x.new_zeros(task.y.shape)
        return {"x": task.x.clone(), "radius": zero, "nearest": zero + torch.inf}

    def loss(self, out: Output, state: State, task: Task, step_index: Tensor) -> Tensor:
        return losses.margin(out.logits, task.y)

    def move(self, state: State, observation: Observation, task: Task) -> State:
        x, clean, threat = state["x"], task.x, task.threat
        wrong = observation.logits.argmax(1) != task.y
        size = threat.distance(x, clean)
        nearest = torch.where(wrong, torch.minimum(size, state["nearest"]), state["nearest"])
        gamma = cosine_decay(self.gamma, self.gamma / 50, observation.step_index, self.steps)
        # Before the first success the radius is the estimated distance of the boundary, where the
        # linearised margin is zero.  It does not shrink even if the estimate does: where clipping
        # to the box keeps the iterate short of the boundary, it would stay short of it.
        slope = threat.dual(observation.grad.flatten(1)).clamp_min(1e-12)
        boundary = size + observation.loss.abs() / slope
        estimate = torch.where(nearest < torch.inf, 0, boundary).maximum(state["radius"])
        grown = estimate * (1 + gamma)
        shrunk = torch.minimum(state["radius"] * (1 - gamma), nearest)
        radius = torch.where(wrong, shrunk, grown).to(clean)
        length = cosine_decay(self.step, self.step / 100, observation.step_index, self.steps)
        rate = length / l2_norms(observation.grad)
        there = x + (over(rate, x) * observation.grad).to(x)
        return {
            "x": _projected(there, clean, radius, threat.norm),
            "radius": radius,
            "nearest": nearest,
        }

    def over(self, state: State, step_index: Tensor) -> Tensor:
        return step_index >= self.steps


def _projected(x: Tensor, clean: Tensor, radius: Tensor, norm: str) -> Tensor:
    """Project ``x`` (B, C, H, W) onto the balls of ``radius`` (B) around ``clean`` and [0, 1]."""
    if norm == "L1":
        return onto_l1(x, clean, radius)
    limit = over(radius, x)
    delta = x - clean
    if norm == "Linf":
        delta = torch.minimum(torch.maximum(delta, -limit), limit)
    else:
        delta = delta * (limit / over(l2_norms(delta), x)).clamp(max=1)
    return (clean + delta).clamp(0, 1)
