"""Output diversified initialization (ODI; Tashiro et al., 2020), https://arxiv.org/abs/2003.06878."""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from robustbench_cli.attacks import ATTACKS, Observation, Output, State, Task
from robustbench_cli.attacks.pgd import PGD
from robustbench_cli.core.gradient_ascent import projected_step
from robustbench_cli.core.threat import over


@ATTACKS.register("pgd-odi", aliases=("odi-pgd",), pattern=r"(?:pgd-odi|odi-pgd)-?(?P<steps>\d+)")
@dataclass(frozen=True, kw_only=True)
class PGDODI(PGD):
    """PGD whose starts are spread over the model's outputs, by two steps along a random direction.

    Before the first step on the loss, ``opening`` steps of size eps climb w . f(x), f being the K
    logits and w uniform in [-1, 1]^K: drawn anew for each example and restart, and kept for all its
    opening steps.  Iterates of the opening count, too.  The defaults are those of ``pgd``, so that
    the two differ by the opening alone; the authors' evaluation is
    ``pgd-odi20:climbs=margin,restarts=20``.
    """

    opening: Annotated[int, Field(ge=0)] = 2
    """Opening steps, of size eps, before the gradient steps; 0 leaves PGD."""

    # Not ``nested_steps``: the look after k steps is number ``opening + k``.

    def begin(self, task: Task) -> State:
        unit = task.noise.fork("outputs").uniform(task.clean)
        return {**super().begin(task), "outputs": 2 * unit - 1}

    def loss(self, out: Output, state: State, task: Task, step_index: Tensor) -> Tensor:
        diverse = (state["outputs"] * out.logits).sum(1)
        climbed = super().loss(out, state, task, step_index)
        return torch.where(step_index < self.opening, diverse, climbed)

    def move(self, state: State, observation: Observation, task: Task) -> State:
        usual = super().move(state, observation, task)
        opened = projected_step(state["x"], observation.grad, task.x, task.threat, 1.0)
        early = over(observation.step_index < self.opening, opened)
        return {**usual, "x": torch.where(early, opened, usual["x"])}

    def over(self, state: State, step_index: Tensor) -> Tensor:
        return super().over(state, step_index - self.opening)

    def counts(self, state: State, step_index: Tensor) -> Tensor:
        return super().counts(state, step_index - self.opening)
