"""Decoupled direction and norm, DDN (Rony et al., 2019), https://arxiv.org/abs/1811.09600.

The gradient says in which direction to look, and whether the last image was adversarial how far.
"""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from robustbench_cli.attacks import ATTACKS, IterativeAttack, Observation, Output, State, Task
from robustbench_cli.core import losses
from robustbench_cli.core.gradient_ascent import Steps
from robustbench_cli.core.registry import Number
from robustbench_cli.core.threat import over


def cosine(first: float, last: float, step_index: Tensor, steps: int) -> Tensor:
    """From ``first`` to ``last`` along half a cosine, each row at its own step."""
    return last + (first - last) * (1 + torch.cos(math.pi * step_index / steps)) / 2


def flat_norm(x: Tensor) -> Tensor:
    """The Euclidean norm of each row (B), never zero."""
    norms: Tensor = torch.linalg.vector_norm(x.flatten(1), dim=1)
    return norms.clamp_min(1e-12)


@ATTACKS.register("ddn", pattern=r"ddn-?(?P<steps>\d+)")
@dataclass(frozen=True, kw_only=True)
class DDN(IterativeAttack):
    """Steps along the gradient on a sphere that shrinks inside and grows outside the class.

    The paper rounds every iterate to the grey levels of an 8-bit image (``levels=256``).  That is
    off by default, as in Foolbox: it costs distance, and no other attack here pays that price.
    """

    steps: Steps = 100
    """Gradient steps; the paper has 100, 300 and 1000."""
    radius: Annotated[Number, Field(gt=0)] = 1.0
    """Radius of the first sphere."""
    gamma: Annotated[Number, Field(gt=0, lt=1)] = 0.05
    """By which share the radius shrinks or grows at each step."""
    levels: Annotated[int, Field(ge=0)] = 0
    """Grey levels that iterates are rounded to; 0: none."""

    norms: ClassVar[tuple[str, ...]] = ("L2",)

    @property
    def minimal(self) -> bool:
        return True

    def begin(self, task: Task) -> State:
        return {"x": task.x.clone(), "radius": task.x.new_full(task.y.shape, self.radius)}

    def loss(self, out: Output, state: State, task: Task, step_index: Tensor) -> Tensor:
        return losses.cross_entropy(out.logits, task.y)

    def move(self, state: State, observation: Observation, task: Task) -> State:
        x, clean = state["x"], task.x
        # A saturated cross-entropy can have tiny gradients, whose squares would vanish, or none at
        # all: then any direction is better than standing still.
        most = observation.grad.flatten(1).abs().amax(1)
        lost = task.noise.fork("lost").at(observation.step_index).normal(x)
        grad = observation.grad / over(most.clamp_min(1e-35), x)
        along = torch.where(over(most > 1e-35, x), grad, lost)
        rate = cosine(1, 0.01, observation.step_index, self.steps) / flat_norm(along)
        delta = x - clean + over(rate, x) * along
        wrong = observation.logits.argmax(1) != task.y
        radius = state["radius"] * torch.where(wrong, 1 - self.gamma, 1 + self.gamma)
        radius = torch.minimum(radius, flat_norm(torch.maximum(clean, 1 - clean)))
        x = clean + over(radius / flat_norm(delta), x) * delta
        if self.levels:
            x = (x * (self.levels - 1)).round() / (self.levels - 1)
        return {"x": x.clamp(0, 1).to(clean), "radius": radius.to(clean)}

    def over(self, state: State, step_index: Tensor) -> Tensor:
        return step_index >= self.steps
