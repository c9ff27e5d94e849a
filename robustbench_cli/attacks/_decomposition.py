"""Margin decomposition: the two terms of the margin climbed one after the other.

Jiang, Ma et al. (2020), https://arxiv.org/abs/2006.13726.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from robustbench_cli.attacks import Iterated, Observation, Output, State, Task
from robustbench_cli.core.registry import Number
from robustbench_cli.core.threat import over

ROUNDS = 2
"""Rounds per start: 0 lowers the score of the true class first, 1 raises that of the rival."""


class MarginTerms(NamedTuple):
    """The margin of a rival class over the true one, and its two terms; each (B), to be climbed."""

    true_up: Tensor
    """The score of the true class."""
    true_down: Tensor
    """The same with the other sign."""
    rival_up: Tensor
    """The score of the rival class."""
    margin: Tensor
    """The rival's score minus that of the true class."""


@dataclass(frozen=True, kw_only=True)
class MarginDecomposition(Iterated):
    """Climb one term of the margin in the first part of the steps, the margin in the rest.

    The very first step raises the score of the true class, which leaves the neighbourhood of the
    start.
    """

    change: Annotated[Number, Field(ge=0, le=1)] = 0.5
    """The part of the steps that climbs a single term of the margin."""

    # Not ``nested_steps``: the step at which the loss changes depends on ``steps``.

    @abstractmethod
    def terms(self, logits: Tensor, state: State, task: Task) -> MarginTerms:
        """Return the margin and its terms at logits (B, K)."""

    @abstractmethod
    def step_sizes(self, step_index: Tensor) -> Tensor:
        """Return the sizes (B, float32) of steps number ``step_index`` (B), as fractions of eps."""

    @property
    def change_point(self) -> float:
        """The first step that climbs the margin; not rounded."""
        return self.change * self.steps

    def restarts_or_targets(self, classes: int) -> int:
        return ROUNDS * self.restarts

    def loss(self, out: Output, state: State, task: Task, step_index: Tensor) -> Tensor:
        terms = self.terms(out.logits, state, task)
        one = (terms.true_down, terms.rival_up)[task.restart_or_target % ROUNDS]
        one = torch.where(step_index == 0, terms.true_up, one)
        return torch.where(step_index < max(1.0, self.change_point), one, terms.margin)

    def move(self, state: State, observation: Observation, task: Task) -> State:
        size = self.step_sizes(observation.step_index).to(state["x"]) * task.threat.eps
        step = over(size, state["x"]) * task.threat.steepest(observation.grad)
        return {**state, "x": task.threat.project(state["x"] + step, task.x)}
