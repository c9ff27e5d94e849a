"""The steps of an attack that stays away from what ordinary attacks leave in features.

Carlini (2020), https://arxiv.org/abs/2009.10975; see ``signature``.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor

from robustbench_cli.attacks import Iterated, Observation, Output, State, Task
from robustbench_cli.attacks.feaatt import WIDEST, random_other_class
from robustbench_cli.core import losses
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.gradient_ascent import Steps, StepSize, projected_step
from robustbench_cli.core.registry import Number
from robustbench_cli.core.threat import over

_FOOLED, _OTHER = 10.0, 5.0
"""The ranks of errors, less the cosine, and of errors of another class than the estimate is of:
above those of images that stand, which are not positive."""
_UNKNOWN = -1
"""The class before PGD has led to one."""
_LEAST = 1e-30
"""The smallest number that anything is divided by."""


@dataclass(frozen=True, kw_only=True)
class SignatureBase(Iterated):
    """The parameters and the steps of ``signature``, which says what they are for."""

    taps: ClassVar[bool] = True

    steps: Steps = 40
    """Gradient steps after the signature is estimated, and of each PGD that it is estimated by."""
    step: StepSize = 0.1
    examples: PositiveInt = 3
    """The images led to the wrong class for the estimate: the image itself, and others."""
    way: Literal["penalty", "orthogonal"] = "penalty"
    """The cosine as a penalty, or steps whose gradients are orthogonal."""
    weight: Annotated[Number, Field(ge=0)] = 4.0
    """The first restart's weight of the cosine, w."""
    decay: Annotated[Number, Field(gt=0, lt=1)] = 0.25
    """The factor by which each restart has a smaller weight."""
    confidence: Annotated[Number, Field(gt=0)] = 0.1
    """The lead of the wrong class that suffices, c, as a share of the clean logits' range."""
    restarts: Annotated[int, Field(ge=1)] = 4
    """The weights tried; with ``way=orthogonal`` independent starts."""

    @property
    def planned_passes(self) -> int:
        return super().planned_passes * (self.examples + self._passes_per_step)

    def most_passes(self, classes: int) -> int:
        return 2 * (self._last + 1)

    @property
    def _passes_per_step(self) -> int:
        return 2 if self.way == "orthogonal" else 1

    @property
    def _estimating(self) -> int:
        """The passes that the estimate takes: the end of each PGD is seen, too."""
        return self.examples * (self.steps + 1)

    @property
    def _last(self) -> int:
        """The index of the last pass, which shows the image that counts."""
        return self._estimating + self._passes_per_step * self.steps + 1

    def begin(self, task: Task) -> State:
        start = super().begin(task)["x"]
        return {
            "x": start,
            "center": task.x,
            "class": torch.full_like(task.y, _UNKNOWN),
            "signature": start.new_zeros(len(start), WIDEST),
            "away": torch.zeros_like(start),
            "best": start,
            "rank": task.clean.new_full((len(start),), -torch.inf),
        }

    def loss(self, out: Output, state: State, task: Task, step_index: Tensor) -> Tensor:
        assert out.features is not None
        known = state["class"] != _UNKNOWN
        # Not a margin: where the model rejects images, that would lead away from the shortcut.
        logit = torch.where(
            known,
            losses.picked(losses.wide(out.logits), state["class"].clamp(min=0)),
            losses.largest_wrong(out.logits, task.y),
        )
        cosine, lead = _cosine(out.features, state), _lead(out.logits, state, task)
        if self.way == "orthogonal":
            evading = torch.where(self._looks_away(step_index), -cosine, lead)
        else:
            weight = self.weight * self.decay**task.restart_or_target
            evading = lead.clamp(max=self.confidence) - weight * cosine
        return torch.where(step_index < self._estimating, logit, evading)

    def move(self, state: State, observation: Observation, task: Task) -> State:
        first = observation.step_index < self._estimating
        estimated = self._estimate(state, observation, task)
        evading = self._evade(state, observation, task)
        return {k: torch.where(over(first, v), v, evading[k]) for k, v in estimated.items()}

    def _estimate(self, state: State, observation: Observation, task: Task) -> State:
        """Lead one image after the other to the wrong class, and add up their features."""
        index = observation.step_index
        number, ended = index // (self.steps + 1), index % (self.steps + 1) == self.steps
        ended &= index < self._estimating
        reached = observation.logits.scatter(1, task.y[:, None], -torch.inf).argmax(1)
        classes = torch.where(ended & (number == 0), reached, state["class"])
        width = observation.features.shape[1]
        added = F.pad(F.normalize(observation.features), (0, WIDEST - width))
        signature = state["signature"] + ended[:, None] * added.to(state["signature"])
        center = state["center"]
        x = projected_step(state["x"], observation.grad, center, task.threat, self.stride)
        known = {**state, "class": classes, "signature": signature}
        if not bool(ended.any()):
            return {**known, "x": x}
        noise = task.noise.fork("others").at(number + 1)
        finished = number == self.examples - 1
        aim = classes if task.target is None else task.target
        drawn = task.data.images(random_other_class(task.data, aim.clamp(min=0), noise))
        following = torch.where(over(finished, drawn), task.x, drawn.to(task.x))
        start = self.climb.begin(following, task.threat, noise)
        center = torch.where(over(ended, center), following, center)
        return {**known, "center": center, "x": torch.where(over(ended, x), start, x)}

    def _evade(self, state: State, observation: Observation, task: Task) -> State:
        """Remember the best image so far and take a step; in the end, go back to the best one."""
        index, x = observation.step_index, state["x"]
        cosine, lead = _cosine(observation.features, state), _lead(observation.logits, state, task)
        other = losses.margin(observation.logits, task.y) > 0
        standing = torch.where(other, _OTHER, lead.clamp(max=0))
        rank = torch.where(lead > 0, _FOOLED - cosine, standing)
        better = rank > state["rank"]
        best = torch.where(over(better, x), x, state["best"])
        rank = torch.where(better, rank, state["rank"])
        direction, away, waits = observation.grad, state["away"], torch.zeros_like(better)
        if self.way == "orthogonal":
            waits = self._looks_away(index)
            away = torch.where(over(waits, x), observation.grad, away)
            enough = over(lead > self.confidence, x)
            direction = torch.where(enough, _freed(away, direction), _freed(direction, away))
        stepped = projected_step(x, direction, task.x, task.threat, self.stride)
        following = torch.where(over(waits, x), x, stepped)
        shown = x if self.last_iterate else best
        following = torch.where(over(index >= self._last - 1, x), shown, following)
        return {**state, "best": best, "rank": rank, "x": following, "away": away}

    def _looks_away(self, step_index: Tensor) -> Tensor:
        """Whether a pass (B) is the first of the two of an orthogonal step, that of the cosine."""
        return (step_index - self._estimating) % 2 == 0

    def over(self, state: State, step_index: Tensor) -> Tensor:
        return step_index >= self._last

    def counts(self, state: State, step_index: Tensor) -> Tensor:
        return step_index >= self._last


def _cosine(features: Tensor, state: State) -> Tensor:
    """The cosine (B) of features (B, F) and the estimated signature; 0 before there is one."""
    width = features.shape[1]
    if width > WIDEST:
        raise UserError(f"attack 'signature' reads at most {WIDEST} features, not {width}")
    return F.cosine_similarity(features, state["signature"][:, :width].to(features), dim=1)


def _lead(logits: Tensor, state: State, task: Task) -> Tensor:
    """The lead (B) of the class that PGD led to, as a share of the clean logits' range."""
    reached, clean = state["class"].clamp(min=0), losses.wide(task.clean)
    spread = (clean.amax(1) - clean.amin(1)).clamp(min=_LEAST)
    return -losses.margin(logits, reached) / spread


def _freed(grad: Tensor, other: Tensor) -> Tensor:
    """Return gradients (B, C, H, W) without their parts along other ones."""
    along = F.normalize(other.flatten(1), dim=1, eps=_LEAST)
    flat = grad.flatten(1)
    return (flat - (flat * along).sum(1, keepdim=True) * along).view_as(grad)
