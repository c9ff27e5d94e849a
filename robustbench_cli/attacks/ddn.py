"""Decoupled direction and norm, DDN (Rony et al., 2019), https://arxiv.org/abs/1811.09600.

The direction of the perturbation follows the gradient; its norm shrinks where the last iterate was
adversarial and grows where it was not (algorithm 1).
"""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from robustbench_cli.attacks import ATTACKS, IterativeAttack, Observation, Output, State, Task
from robustbench_cli.core.gradient_ascent import Steps
from robustbench_cli.core.registry import Number
from robustbench_cli.core.threat import over


def cosine_decay(first: float, last: float, step_index: Tensor, steps: int) -> Tensor:
    """Return (B) values between ``first`` at step 0 and ``last`` at step ``steps``.

    Annealed along half a cosine; ``step_index`` (B) is the step of each row.
    """
    return last + (first - last) * (1 + torch.cos(math.pi * step_index / steps)) / 2


def l2_norms(x: Tensor) -> Tensor:
    """Return the L2 norm of each row of ``x`` (B, ...), shape (B) and at least 1e-12."""
    norms: Tensor = torch.linalg.vector_norm(x.flatten(1), dim=1)
    return norms.clamp_min(1e-12)


@ATTACKS.register("ddn", pattern=r"ddn-?(?P<steps>\d+)")
@dataclass(frozen=True, kw_only=True)
class DDN(IterativeAttack):
    """Gradient steps on an L2 sphere whose radius shrinks at adversarial iterates, else grows.

    The step size falls from 1 to 0.01 along half a cosine.  Unlike PGD it minimises the norm and
    needs no radius of the threat.  The paper rounds each iterate to the grey levels of an 8-bit
    image (``levels=256``).  That is off by default, as in Foolbox: it lengthens perturbations, and
    no other attack here does it.
    """

    steps: Steps = 100
    """Gradient steps; the paper uses 100, 300 and 1000."""
    radius: Annotated[Number, Field(gt=0)] = 1.0
    """Radius of the first sphere (L2, pixels in [0, 1])."""
    gamma: Annotated[Number, Field(gt=0, lt=1)] = 0.05
    """Share by which the radius shrinks or grows at each step."""
    levels: Annotated[int, Field(ge=0)] = 0
    """Number of grey levels that iterates are rounded to; 0: no rounding."""

    norms: ClassVar[tuple[str, ...]] = ("L2",)

    @property
    def planned_passes(self) -> int:
        return 2 * self.steps

    @property
    def minimal(self) -> bool:
        return True

    def begin(self, task: Task) -> State:
        return {"x": task.x.clone(), "radius": task.x.new_full(task.y.shape, self.radius)}

    def loss(self, out: Output, state: State, task: Task, step_index: Tensor) -> Tensor:
        return task.cross_entropy(out)

    def move(self, state: State, observation: Observation, task: Task) -> State:
        x, clean = state["x"], task.x
        # A saturated cross-entropy can have gradients so small that their squares underflow, or
        # zero gradients: the first are rescaled, the second replaced by a random direction.
        largest = observation.grad.flatten(1).abs().amax(1)
        random = task.noise.fork("lost").at(observation.step_index).normal(x)
        grad = observation.grad / over(largest.clamp_min(1e-35), x)
        direction = torch.where(over(largest > 1e-35, x), grad, random)
        rate = cosine_decay(1, 0.01, observation.step_index, self.steps) / l2_norms(direction)
        delta = x - clean + over(rate, x) * direction
        wrong = observation.logits.argmax(1) != task.y
        radius = state["radius"] * torch.where(wrong, 1 - self.gamma, 1 + self.gamma)
        radius = torch.minimum(radius, l2_norms(torch.maximum(clean, 1 - clean)))
        x = clean + over(radius / l2_norms(delta), x) * delta
        if self.levels:
            x = (x * (self.levels - 1)).round() / (self.levels - 1)
        return {"x": x.clamp(0, 1).to(clean), "radius": radius.to(clean)}

    def over(self, state: State, step_index: Tensor) -> Tensor:
        return step_index >= self.steps
