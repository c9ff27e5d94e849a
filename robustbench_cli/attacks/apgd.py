"""Auto-PGD (Croce & Hein, 2020), https://arxiv.org/abs/2003.01690, algorithm 1.

PGD with momentum whose step size starts at 2 eps and is halved at checkpoints where the loss has
stalled; each halving returns to the best point so far.  Under L1 it is the sparse version of
Croce & Hein (2021), https://arxiv.org/abs/2103.01208.  Defaults are those of AutoAttack.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from robustbench_cli.attacks import ATTACKS, Observation, Output, State, Task
from robustbench_cli.attacks._apgd import APGD
from robustbench_cli.attacks._targeting import AimsAtClasses
from robustbench_cli.core import losses
from robustbench_cli.core.free_looks import surely_all


@ATTACKS.register("apgd-ce", aliases=("apgd",), pattern=r"apgd-ce-(?P<steps>\d+)")
@dataclass(frozen=True, kw_only=True)
class CrossEntropy(APGD):
    """Auto-PGD on the cross-entropy."""

    def loss(self, out: Output, state: State, task: Task, step_index: Tensor) -> Tensor:
        return task.cross_entropy(out)


@ATTACKS.register("apgd-margin", pattern=r"apgd-margin-(?P<steps>\d+)")
@dataclass(frozen=True, kw_only=True)
class LogitMargin(APGD):
    """Auto-PGD on the margin, the largest wrong logit minus the true one.

    It needs two classes only: ``autoattack`` runs it where the logit ratios are not defined.
    """

    def loss(self, out: Output, state: State, task: Task, step_index: Tensor) -> Tensor:
        return losses.margin(out.logits, task.y)


@dataclass(frozen=True, kw_only=True)
class Ratio(APGD):
    """Auto-PGD on a logit ratio; it reports a zero gradient at the random start.

    The official code checks the same and warns of it, for this loss only: a zero gradient there
    is a sign of gradient masking.
    """

    def begin(self, task: Task) -> State:
        # An image whose mask leaves no pixel free has a zero gradient for that reason alone.
        free = task.threat.allowed(torch.ones_like(task.x)).any((1, 2, 3))
        return {**super().begin(task), "zero_gradient": free}

    def move(self, state: State, observation: Observation, task: Task) -> State:
        moved, begun = super().move(state, observation, task), observation.step_index > 0
        if surely_all(begun):
            return moved
        zero = ~observation.grad.any((1, 2, 3))
        return {**moved, "zero_gradient": state["zero_gradient"] & (begun | zero)}

    def zero_gradient_at_start(self, state: State) -> Tensor:
        return state["zero_gradient"]


@ATTACKS.register("apgd-dlr", pattern=r"apgd-dlr-(?P<steps>\d+)")
@dataclass(frozen=True, kw_only=True)
class LogitRatio(Ratio):
    """Auto-PGD on the difference of logits ratio (DLR), which is invariant to logit scaling.

    Equation 6 of the paper.  It reads the three largest logits, so it needs three classes; the
    targeted ratio (``apgd-t``) also reads the fourth.
    """

    min_classes: ClassVar[int] = 3

    def loss(self, out: Output, state: State, task: Task, step_index: Tensor) -> Tensor:
        return task.dlr(out)


@ATTACKS.register("apgd-t", pattern=r"apgd-t-(?P<steps>\d+)")
@dataclass(frozen=True, kw_only=True)
class TargetedAPGD(AimsAtClasses, Ratio):
    """Auto-PGD on the targeted DLR loss, towards the most likely wrong classes one by one.

    Equation 7 of the paper.  The targets are the classes with the largest clean logits after the
    true one; with a ``target`` it is the only one, and it is to lead every other class.
    """

    targets: Annotated[int, Field(ge=1)] = 9
    """Number of target classes; all wrong classes if there are fewer."""

    min_classes: ClassVar[int] = 4

    def restarts_or_targets(self, classes: int) -> int:
        return self.restarts * min(self.targets, classes - 1)

    def begin(self, task: Task) -> State:
        # All restarts of one target run before the next target, as in the official code.
        return {
            **super().begin(task),
            "target": task.ranked(2 + task.restart_or_target // self.restarts),
        }

    def loss(self, out: Output, state: State, task: Task, step_index: Tensor) -> Tensor:
        if task.target is None:
            return losses.dlr_targeted(out.logits, task.y, state["target"])
        return task.dlr(out)
