"""Ascent within one square window of each image, which may take any values: patch attacks."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from robustbench_cli.attacks._iterative import Iterated
from robustbench_cli.attacks._task import Observation, State, Task
from robustbench_cli.core.geometries._pixels import window
from robustbench_cli.core.gradient_ascent import Start
from robustbench_cli.core.registry import Number
from robustbench_cli.core.threat import over


@dataclass(frozen=True, kw_only=True)
class InWindow(Iterated, ABC):
    """Sign steps on the pixels of a window; the rest of the image stays as it is.

    Where the window is chosen by a gradient, the first pass is at the clean image and the ascent
    begins after it.
    """

    step: Annotated[Number, Field(gt=0, le=1)] = 0.05
    """Step size in units of pixels in [0, 1]: a patch may take any value, so there is no eps."""
    start: Start = "uniform"
    """The first values in the window: uniform (the image's own plus a number in [-1, 1], brought
    back to [0, 1]), or clean (the image's own)."""

    norms: ClassVar[tuple[str, ...]] = ("patch",)

    def __post_init__(self) -> None:
        if self.start not in ("uniform", "clean"):
            raise ValueError(f"start is uniform or clean within a patch, got {self.start!r}")

    @property
    def opening(self) -> int:
        """The passes at the clean image, 0 or 1."""
        return 0

    @abstractmethod
    def places(self, task: Task, grad: Tensor) -> Tensor:
        """Return the number of the window of each image (B, int64), row by row.

        Args:
            grad: the loss's gradient (B, C, H, W) at the clean image; zeros if ``opening`` is 0.
        """

    def begin(self, task: Task) -> State:
        if self.opening:
            return {"x": task.x.clone(), "place": torch.zeros_like(task.y)}
        place = self.places(task, torch.zeros_like(task.x))
        return {"x": self._started(task, place), "place": place}

    def move(self, state: State, observation: Observation, task: Task) -> State:
        place = state["place"]
        step = self.stride * observation.grad.sign()
        x = torch.where(_window(task, place), (state["x"] + step).clamp(0, 1), task.x)
        if self.opening:
            opens = observation.step_index < self.opening
            place = torch.where(opens, self.places(task, observation.grad), place)
            x = torch.where(over(opens, x), self._started(task, place), x)
        return {"x": task.threat.restored(x, task.x), "place": place}

    def over(self, state: State, step_index: Tensor) -> Tensor:
        return super().over(state, step_index - self.opening)

    def counts(self, state: State, step_index: Tensor) -> Tensor:
        return super().counts(state, step_index - self.opening)

    def _started(self, task: Task, place: Tensor) -> Tensor:
        first = task.x
        if self.start == "uniform":
            first = (first + 2 * task.noise.fork("start").uniform(first) - 1).clamp(0, 1)
        return task.threat.restored(torch.where(_window(task, place), first, task.x), task.x)


def _window(task: Task, place: Tensor) -> Tensor:
    return window(place, int(task.threat.eps), (task.x.shape[2], task.x.shape[3]))
