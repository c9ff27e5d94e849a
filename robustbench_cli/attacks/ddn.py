"""Decoupled direction and norm, DDN (Rony et al., 2019), https://arxiv.org/abs/1811.09600.

The direction of the perturbation follows the gradient; its norm shrinks where the last iterate was
adversarial and grows where it was not (algorithm 1).
"""

from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from robustbench_cli.attacks import ATTACKS, IterativeAttack, Observation, Output, State, Task
from robustbench_cli.core.decoupled_step import (
    cosine_decay,
    decoupled_step,
    next_radius,
    on_grey_levels,
)
from robustbench_cli.core.gradient_ascent import Steps
from robustbench_cli.core.registry import Number


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
        x, clean, index = state["x"], task.x, observation.step_index
        random = partial(task.noise.fork("lost").at(index).normal, x)
        wrong = observation.logits.argmax(1) != task.y
        radius = next_radius(state["radius"], wrong, clean, self.gamma)
        rate = cosine_decay(1, 0.01, index, self.steps)
        x = decoupled_step(x, clean, observation.grad, random, rate, radius)
        x = on_grey_levels(x, self.levels)
        return {"x": x.clamp(0, 1).to(clean), "radius": radius.to(clean)}

    def over(self, state: State, step_index: Tensor) -> Tensor:
        return step_index >= self.steps
