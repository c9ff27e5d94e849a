"""Feature attack, FeaAtt (Lin, 2019), https://github.com/Line290/FeatureAttack.

No paper describes it; robust models were judged by it in the tables of hypersphere embedding
(Pang et al., 2020), https://arxiv.org/abs/2002.08619.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from robustbench_cli.attacks import ATTACKS, Examples, Iterated, Observation, Output, State, Task
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.gradient_ascent import Steps, StepSize
from robustbench_cli.core.threat import over

WIDEST = 8192
"""Room for the target's features: how many there are is not known when an example begins."""


@ATTACKS.register("feaatt", pattern=r"feaatt-?(?P<restarts>\d+)")
@dataclass(frozen=True, kw_only=True)
class FeaAtt(Iterated):
    """Pull an image's features towards those of images of other classes, one after the other.

    The first look of every lane is at the target image and never counts.  Steps and targets are
    the README's "20-1-8-100"; the script itself takes 50 steps and 500 targets, and TRADES was
    given ``feaatt200:steps=50``.  A batch of the script ends when any copy is misclassified;
    lanes that run one after the other on what still stands come to the same.
    """

    taps: ClassVar[bool] = True

    steps: Steps = 20
    step: StepSize = 0.125
    """Step size as a fraction of eps: 1/255 at eps 8/255."""
    restarts: Annotated[int, Field(ge=1)] = 100
    """Target images, each with a start of its own."""

    def begin(self, task: Task) -> State:
        target = task.data.images(random_other_class(task.data, task.y, task.noise.fork("target")))
        start = super().begin(task)["x"]
        goal = start.new_zeros(len(start), WIDEST)
        return {"x": target.to(start), "start": start, "goal": goal}

    def loss(self, out: Output, state: State, task: Task, step_index: Tensor) -> Tensor:
        assert out.features is not None
        width = out.features.shape[1]
        if width > WIDEST:
            raise UserError(f"attack 'feaatt' reads at most {WIDEST} features, not {width}")
        near = F.cosine_similarity(out.features, state["goal"][:, :width], dim=1)
        return -(1 - near).clamp_min(0)

    def move(self, state: State, observation: Observation, task: Task) -> State:
        first = observation.step_index == 0
        found = F.pad(observation.features, (0, WIDEST - observation.features.shape[1])).to(
            state["goal"]
        )
        goal = torch.where(first[:, None], found, state["goal"])
        x = torch.where(
            over(first, task.x), state["start"], super().move(state, observation, task)["x"]
        )
        return {**state, "x": x, "goal": goal}

    def over(self, state: State, step_index: Tensor) -> Tensor:
        return step_index > self.steps

    def counts(self, state: State, step_index: Tensor) -> Tensor:
        return step_index > (self.steps if self.last_iterate else 0)


def random_other_class(data: Examples, y: Tensor, noise: Noise) -> Tensor:
    """For each label (B) the place of a random example of another class in ``data``."""
    ranked, order = data.y.sort(stable=True)
    low, high = torch.searchsorted(ranked, y), torch.searchsorted(ranked, y, right=True)
    own = high - low
    drawn = noise.uniform(y[:, None].double()).squeeze(1)
    at = (drawn * (len(ranked) - own)).long()
    # Everything but the block of the own class; the end stops a set of one class from failing.
    return order[torch.where(at < low, at, at + own).clamp_max(len(ranked) - 1)]
