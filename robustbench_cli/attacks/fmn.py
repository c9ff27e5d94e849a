"""Fast minimum-norm attack, FMN (Pintor et al., 2021), https://arxiv.org/abs/2102.12827.

Descent on the margin inside a ball whose radius follows the distance to the boundary.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from robustbench_cli.attacks import ATTACKS, IterativeAttack, Observation, Output, State, Task
from robustbench_cli.attacks.ddn import cosine, flat_norm
from robustbench_cli.core import losses
from robustbench_cli.core.gradient_ascent import Steps
from robustbench_cli.core.registry import Number
from robustbench_cli.core.threat import onto_l1, over


@ATTACKS.register("fmn", pattern=r"fmn-?(?P<steps>\d+)")
@dataclass(frozen=True, kw_only=True)
class FMN(IterativeAttack):
    """Normalised gradient steps, brought back to a ball of a radius that is learnt on the way.

    The authors' code takes 10 steps, which Foolbox found too few; 100 are its and our default.
    Under L2 the ball only ever shrinks a perturbation, as in the paper (Foolbox's projection does
    nothing, adversarial-library's also stretches).  Under L1 the projection is onto ball and box
    at once, where the paper's goes onto the ball and then clips, which loses most of its reach.
    """

    steps: Steps = 100
    """Gradient steps."""
    step: Annotated[Number, Field(gt=0)] = 1.0
    """Length of the first step in L2; the last is a hundredth of it."""
    gamma: Annotated[Number, Field(gt=0, lt=1)] = 0.05
    """By which share the radius first shrinks or grows; at the end it is a fiftieth of it."""

    @property
    def minimal(self) -> bool:
        return True

    def begin(self, task: Task) -> State:
        each = task.x.new_zeros(task.y.shape)
        return {"x": task.x.clone(), "radius": each, "nearest": each + torch.inf}

    def loss(self, out: Output, state: State, task: Task, step_index: Tensor) -> Tensor:
        return losses.margin(out.logits, task.y)

    def move(self, state: State, observation: Observation, task: Task) -> State:
        x, clean, threat = state["x"], task.x, task.threat
        wrong = observation.logits.argmax(1) != task.y
        size = threat.distance(x, clean)
        nearest = torch.where(wrong, torch.minimum(size, state["nearest"]), state["nearest"])
        gamma = cosine(self.gamma, self.gamma / 50, observation.step_index, self.steps)
        # Before the first success the boundary is where the linearised margin vanishes.  There the
        # radius never shrinks: where the box clips a step short, it would be so for ever.
        edge = size + observation.loss.abs() / threat.dual(observation.grad.flatten(1)).clamp_min(
            1e-12
        )
        reach = torch.where(nearest < torch.inf, 0, edge).maximum(state["radius"])
        inside = reach * (1 + gamma)
        outside = torch.minimum(state["radius"] * (1 - gamma), nearest)
        radius = torch.where(wrong, outside, inside).to(clean)
        rate = cosine(self.step, self.step / 100, observation.step_index, self.steps) / flat_norm(
            observation.grad
        )
        there = x + (over(rate, x) * observation.grad).to(x)
        return {
            "x": _within(there, clean, radius, threat.norm),
            "radius": radius,
            "nearest": nearest,
        }

    def over(self, state: State, step_index: Tensor) -> Tensor:
        return step_index >= self.steps


def _within(x: Tensor, clean: Tensor, radius: Tensor, norm: str) -> Tensor:
    """No further than ``radius`` from the clean image, and in the box."""
    if norm == "L1":
        return onto_l1(x, clean, radius)
    far = over(radius, x)
    delta = x - clean
    if norm == "Linf":
        delta = torch.minimum(torch.maximum(delta, -far), far)
    else:
        delta = delta * (far / over(flat_norm(delta), x)).clamp(max=1)
    return (clean + delta).clamp(0, 1)
