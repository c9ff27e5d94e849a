"""Attacks that fit something to other images before they see any example: one perturbation for all.

What is fitted is the same for every example, in every process, and after an interruption.  The
images it is fitted to are training images, so that no example of the evaluation has a part in it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from robustbench_cli.attacks._iterative import IterativeAttack
from robustbench_cli.attacks._task import Observation, Output, State, Task
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.examples import Examples
from robustbench_cli.core.threat import Threat


@dataclass(frozen=True, kw_only=True)
class FitSubject:
    """The model and the M images that an attack is fitted to; none of them is evaluated."""

    data: Examples
    rows: Tensor
    """Positions (M, int64) in ``data``, in a random order."""
    threat: Threat
    noise: Noise
    """Keyed by image, M of them."""
    logits: Callable[[Tensor, Tensor], Tensor]
    """Images (B, C, H, W) in [0, 1] and their ``aims`` (B) to logits as attacks are shown them
    (B, K), or all of them (B, K) where there is a target; with a gradient where one is enabled."""
    craft: Callable[[IterativeAttack, Threat, Tensor, Tensor, Noise], Tensor]
    """An attack, its threat, images (B, C, H, W), the classes to leave (B) and random numbers (B)
    to the images that it ends with; whether it succeeds does not matter."""
    aims: Tensor
    """True classes (M, int64), or with a target the class to reach."""
    targeted: bool = False
    batch_size: int = 256
    """Images that the model is shown at a time."""

    def images(self, places: Tensor) -> Tensor:
        """Return the images (B, C, H, W) at these places (B) of the M."""
        return self.data.images(self.rows[places])

    def order(self, index: int) -> Tensor:
        """Return the M places in a random order, another one for each ``index``."""
        draw = torch.full_like(self.rows, index)
        like = torch.zeros(len(self.rows), 1, device=self.rows.device)
        return self.noise.fork("order").at(draw).uniform(like).squeeze(1).argsort(stable=True)

    def cost(self, logits: Tensor, aims: Tensor) -> Tensor:
        """Return what is to be climbed (B): the cross-entropy, or minus that of the target."""
        loss = torch.nn.functional.cross_entropy(logits, aims, reduction="none")
        return -loss if self.targeted else loss


@dataclass(frozen=True, kw_only=True)
class FittedAttack(IterativeAttack, ABC):
    """An attack that asks about one image per example, made with what was fitted before.

    Fitting goes in rounds: ``fit_begin``, then ``fit_round`` until the last of ``rounds`` or
    ``fitted_enough``.  What a round returns is all that the next one knows, besides the subject.
    """

    fit: Annotated[int, Field(ge=1)] = 2000
    """Training images that it is fitted to; all of them where there are fewer."""

    @property
    def fits(self) -> bool:
        return True

    @property
    def maskable(self) -> bool:
        return False

    @property
    def no_target(self) -> str:
        one_class = self.target is None or isinstance(self.target, int)
        return "" if one_class else "one change for all images leads to one class, by its number"

    @abstractmethod
    def rounds(self, images: int) -> int:
        """Return the largest number of rounds, for so many images."""

    @abstractmethod
    def fit_begin(self, subject: FitSubject) -> State:
        """Return what is known before the first round: tensors of any shape, by name."""

    @abstractmethod
    def fit_round(self, subject: FitSubject, state: State, index: int) -> State:
        """Return what is known after round ``index`` (from 0)."""

    def fitted_enough(self, state: State) -> bool:
        """Return whether no further round is needed."""
        return False

    @abstractmethod
    def picture(self, fitted: State, threat: Threat) -> Tensor:
        """Return what was fitted as an image (C, H, W) in [0, 1]."""

    def loss(self, out: Output, state: State, task: Task, step_index: Tensor) -> Tensor:
        return task.cross_entropy(out)

    def move(self, state: State, observation: Observation, task: Task) -> State:
        return state

    def over(self, state: State, step_index: Tensor) -> Tensor:
        return step_index >= 0


@dataclass(frozen=True)
class FitResult:
    """What an attack has fitted, and what that cost."""

    state: State
    forwards: int = 0
    """Images pushed forward through the model."""
    backwards: int = 0
