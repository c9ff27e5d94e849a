"""Feature attack, FeaAtt (Lin, 2019), https://github.com/Line290/FeatureAttack.

There is no paper on it; hypersphere embedding (Pang et al., 2020),
https://arxiv.org/abs/2002.08619, reports it in its tables.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from robustbench_cli.attacks import ATTACKS, Iterated, Observation, Output, State, Task
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.examples import Examples
from robustbench_cli.core.gradient_ascent import Steps, StepSize
from robustbench_cli.core.threat import over

WIDEST = 8192
"""Most features of a model; the state reserves as many for the target, because their number is
not known when an example begins."""


@ATTACKS.register("feaatt", pattern=r"feaatt-?(?P<restarts>\d+)")
@dataclass(frozen=True, kw_only=True)
class FeaAtt(Iterated):
    """PGD that pulls an image's features towards those of images of other classes.

    It maximises the cosine similarity of penultimate features (the input of the last layer), for
    one random target image of another class per restart.  The first pass of each restart computes
    the target's features, and its prediction never counts.  With a ``target`` class the target
    images are of that class.  They are drawn from the whole test split, however few of its images
    are evaluated; where that has none of a class that is wanted, the evaluation is refused.

    Steps and targets are those of the README's "20-1-8-100"; the script's defaults are 50 steps
    and 500 targets, and TRADES was evaluated with ``feaatt200:steps=50``.  The script attacks with
    all targets at once and stops when any copy is misclassified; restarts that attack what the
    previous ones left unbroken give the same result.
    """

    taps: ClassVar[bool] = True
    takes_images: ClassVar[bool] = True

    steps: Steps = 20
    step: StepSize = 0.125
    """Step size as a fraction of eps: 1/255 at eps 8/255."""
    restarts: Annotated[int, Field(ge=1)] = 100
    """Number of target images, each with a random start of its own."""

    def begin(self, task: Task) -> State:
        noise, data = task.noise.fork("target"), task.data
        if task.target is None:
            rows = random_other_class(data, task.y, noise)
        else:
            rows = random_of_class(data, task.target, noise)
        target = data.images(rows.to(data.y.device))
        start = super().begin(task)["x"]
        goal = start.new_zeros(len(start), WIDEST)
        return {"x": target.to(start), "start": start, "goal": goal}

    def loss(self, out: Output, state: State, task: Task, step_index: Tensor) -> Tensor:
        assert out.features is not None
        width = out.features.shape[1]
        if width > WIDEST:
            raise UserError(f"attack 'feaatt' reads at most {WIDEST} features, not {width}")
        similarity = F.cosine_similarity(out.features, state["goal"][:, :width], dim=1)
        return -(1 - similarity).clamp_min(0)

    def move(self, state: State, observation: Observation, task: Task) -> State:
        first = observation.step_index == 0
        padded = F.pad(observation.features, (0, WIDEST - observation.features.shape[1]))
        goal = torch.where(first[:, None], padded.to(state["goal"]), state["goal"])
        x = torch.where(
            over(first, task.x), state["start"], super().move(state, observation, task)["x"]
        )
        return {**state, "x": x, "goal": goal}

    def over(self, state: State, step_index: Tensor) -> Tensor:
        return step_index > self.steps

    def counts(self, state: State, step_index: Tensor) -> Tensor:
        return step_index > (self.steps if self.last_iterate else 0)


def random_other_class(data: Examples, y: Tensor, noise: Noise) -> Tensor:
    """Return the index (B) in ``data`` of a random example of another class for each label (B).

    If all examples have one class, the index of an example of that class.
    """
    ranked, order = data.y.to(y.device).sort(stable=True)
    low, high = torch.searchsorted(ranked, y), torch.searchsorted(ranked, y, right=True)
    same = high - low
    drawn = noise.uniform(y[:, None].double()).squeeze(1)
    at = (drawn * (len(ranked) - same)).long()
    # Skip the block of the label's own class; the clamp keeps data of a single class in range.
    return order[torch.where(at < low, at, at + same).clamp_max(len(ranked) - 1)]


def random_of_class(data: Examples, y: Tensor, noise: Noise) -> Tensor:
    """Return the index (B) in ``data`` of a random example of each class in ``y`` (B).

    Where there is none of a class, the index of an example of a class next to it.
    """
    ranked, order = data.y.to(y.device).sort(stable=True)
    low, high = torch.searchsorted(ranked, y), torch.searchsorted(ranked, y, right=True)
    drawn = noise.uniform(y[:, None].double()).squeeze(1)
    at = low + (drawn * (high - low)).long()
    return order[at.clamp_max(len(ranked) - 1)]
