"""What decision-based attacks share: they read predicted classes, and begin at a wrong image."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from robustbench_cli.attacks import Access, IterativeAttack, Observation, State, Task
from robustbench_cli.attacks.feaatt import random_of_class, random_other_class
from robustbench_cli.core.threat import Threat, over

NOISE_IMAGES = 100
"""Images of noise that are tried before one of another class is; nets often put all noise into one
class, and images of that class need another beginning."""
BLEND_WIDTH = 1e-3
"""The width at which the first bisection between noise and image ends, as in the code of
HopSkipJump's authors."""

SEEKING, BLENDING, WALKING = 0, 1, 2
"""The phases of an example: it looks for a first wrong image, moves it to the border of the class
by bisection, and does what the attack itself does, which may have further phases."""


@dataclass(frozen=True, kw_only=True)
class DecisionAttack(IterativeAttack, ABC):
    """An attack that asks for the predicted class of one image per query, and nothing else.

    It begins with uniform noise that is misclassified, or, if ``NOISE_IMAGES`` of them are not, an
    image of another class among those that are evaluated; with a target, first an image of that
    class.  Bisection on the line to the clean image brings it close to the border.  All of that
    counts as queries.  The nearest misclassified image that was asked about is the result.
    """

    access: ClassVar[Access] = "decision"

    queries: Annotated[int, Field(ge=1)] = 25_000
    """Images that it asks about per example, the search for a first one included.  Nothing else
    depends on it: a run with fewer queries is the beginning of one with more."""

    def leaves_ball(self, threat: Threat) -> bool:
        return True

    @property
    def planned_passes(self) -> int:
        return self.queries

    @property
    def minimal(self) -> bool:
        return True

    @abstractmethod
    def first(self, task: Task) -> State:
        """Return what the attack itself remembers, before it knows a wrong image."""

    @abstractmethod
    def walk(self, state: State, wrong: Tensor, task: Task, step_index: Tensor) -> State:
        """Return what changes in the state once a wrong image near the border is known.

        Its first call sees that image as ``state["x"]``.

        Args:
            wrong: whether ``state["x"]`` is misclassified (B, bool).
            step_index: the number of queries before this one (B).
        """

    def begin(self, task: Task) -> State:
        zero = torch.zeros_like(task.x[:, 0, 0, 0])
        other = _other_image(task)
        shared = {"x": self._opening(task, other, 0 * task.y), "wrong": task.x, "other": other}
        interval = {"low": zero, "high": zero + 1}
        return {**shared, **interval, "phase": 0 * task.y + SEEKING, **self.first(task)}

    def move(self, state: State, observation: Observation, task: Task) -> State:
        wrong = observation.logits.argmax(1) != task.y
        walked = self.walk(state, wrong, task, observation.step_index)
        walking = state["phase"] >= WALKING
        # The rule, but for the first few of thousands of queries; asking a GPU costs more than what
        # it saves.
        if walking.device.type == "cpu" and bool(walking.all()):
            return {**state, **walked}
        opened = self._open(state, wrong, task, observation.step_index)
        changed = {**{key: state[key] for key in opened}, **walked}
        chosen = {
            name: torch.where(over(walking, new), new, opened.get(name, state[name]))
            for name, new in changed.items()
        }
        return {**state, **opened, **chosen}

    def _open(self, state: State, wrong: Tensor, task: Task, step_index: Tensor) -> State:
        """The changes while an example looks for a wrong image or blends it with the clean one."""
        blending = state["phase"] == BLENDING
        found = wrong & ~blending
        source = torch.where(over(found, task.x), state["x"], state["wrong"])
        middle = (state["low"] + state["high"]) / 2
        low = torch.where(blending & ~wrong, middle, state["low"])
        high = torch.where(blending & wrong, middle, state["high"])
        there = blending & (high - low <= BLEND_WIDTH)
        at = torch.where(there, high, (low + high) / 2)
        blend = task.x + over(at, task.x) * (source - task.x)
        again = self._opening(task, state["other"], step_index + 1)
        return {
            "x": torch.where(over(found | blending, task.x), blend, again),
            "wrong": source,
            "low": low,
            "high": high,
            "phase": torch.where(there, WALKING, torch.where(found | blending, BLENDING, SEEKING)),
        }

    def _opening(self, task: Task, other: Tensor, attempt: Tensor) -> Tensor:
        """The image to ask about first (B, C, H, W), or after so many that are not wrong (B)."""
        noise = task.noise.fork("opening").at(attempt).uniform(task.x)
        turn = attempt == (NOISE_IMAGES if task.target is None else 0)
        return task.threat.restored(torch.where(over(turn, task.x), other, noise), task.x)

    def over(self, state: State, step_index: Tensor) -> Tensor:
        return step_index >= self.queries - 1


def _other_image(task: Task) -> Tensor:
    """A random image (B, C, H, W) of another class than each example's, or of its target class."""
    noise = task.noise.fork("other image")
    if task.target is None:
        rows = random_other_class(task.data, task.y, noise)
    else:
        rows = random_of_class(task.data, task.target, noise)
    return task.data.images(rows).to(task.x)
