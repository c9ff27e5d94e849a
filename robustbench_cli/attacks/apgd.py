"""Auto-PGD (Croce & Hein, 2020), https://arxiv.org/abs/2003.01690, algorithm 1.

A step size that halves itself when the loss stalls, and a return to the best point so far.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from robustbench_cli.attacks import ATTACKS, Observation, Output, State, Task
from robustbench_cli.attacks._apgd import APGD
from robustbench_cli.core import losses


@ATTACKS.register("apgd-ce", aliases=("apgd",), pattern=r"apgd-ce-(?P<steps>\d+)")
@dataclass(frozen=True, kw_only=True)
class CrossEntropy(APGD):
    """Auto-PGD on the cross-entropy."""

    def loss(self, out: Output, state: State, task: Task, step_index: Tensor) -> Tensor:
        return losses.cross_entropy(out.logits, task.y)


@dataclass(frozen=True, kw_only=True)
class Ratio(APGD):
    """Auto-PGD on a logit ratio, which says where that is flat at the random start."""

    def begin(self, task: Task) -> State:
        # Where a mask leaves nothing open there is nothing to be flat.
        open_ = task.threat.allowed(torch.ones_like(task.x)).any((1, 2, 3))
        return {**super().begin(task), "flat": open_}

    def move(self, state: State, observation: Observation, task: Task) -> State:
        flat = state["flat"] & ((observation.step_index > 0) | ~observation.grad.any((1, 2, 3)))
        return {**super().move(state, observation, task), "flat": flat}

    def zero_gradient_at_start(self, state: State) -> Tensor:
        return state["flat"]


@ATTACKS.register("apgd-dlr", pattern=r"apgd-dlr-(?P<steps>\d+)")
@dataclass(frozen=True, kw_only=True)
class LogitRatio(Ratio):
    """Auto-PGD on the difference of logits ratio, which no rescaling of the logits can blunt.

    Untargeted, it reads the three largest logits, so three classes are enough; the targeted ratio
    (``apgd-t``) reads the fourth, too.
    """

    min_classes: ClassVar[int] = 3

    def loss(self, out: Output, state: State, task: Task, step_index: Tensor) -> Tensor:
        return losses.dlr(out.logits, task.y)


@ATTACKS.register("apgd-t", pattern=r"apgd-t-(?P<steps>\d+)")
@dataclass(frozen=True, kw_only=True)
class TargetedAPGD(Ratio):
    """Auto-PGD on the targeted logit ratio, towards the most likely wrong classes in turn."""

    targets: Annotated[int, Field(ge=1)] = 9
    """How many wrong classes, by clean logit; with fewer than that, all of them."""

    min_classes: ClassVar[int] = 4

    def restarts_or_targets(self, classes: int) -> int:
        return self.restarts * min(self.targets, classes - 1)

    def begin(self, task: Task) -> State:
        # Every restart of one target comes before the next target, as in the official code.
        return {
            **super().begin(task),
            "target": task.ranked(2 + task.restart_or_target // self.restarts),
        }

    def loss(self, out: Output, state: State, task: Task, step_index: Tensor) -> Tensor:
        return losses.dlr_targeted(out.logits, task.y, state["target"])
