"""Auto-PGD (Croce & Hein, 2020), https://arxiv.org/abs/2003.01690, algorithm 1.

A step size that halves itself when the loss stalls, and a return to the best point so far.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from robustbench_cli import losses
from robustbench_cli.ascent import Steps
from robustbench_cli.attacks import ATTACKS, Attack, Look, Output, State, Task
from robustbench_cli.attacks._apgd import Ball, Sparse, Walk
from robustbench_cli.threat import Threat


@dataclass(frozen=True, kw_only=True)
class APGD(Attack):
    """What the three losses have in common."""

    steps: Steps = 100
    """Gradient steps; the schedule's checkpoints are shares of it."""
    restarts: Annotated[int, Field(ge=1)] = 1
    """Independent starts; each works on what the ones before it left standing."""
    rho: Annotated[float, Field(gt=0, lt=1)] = 0.75
    """The step size halves unless the loss rose in more than this share of the steps."""
    eot: Annotated[int, Field(ge=1)] = 1
    """Gradients averaged per step, for randomised models."""

    roams: ClassVar[bool] = True  # under L1 it begins in a larger ball

    @property
    def draws(self) -> int:
        return self.eot

    def lanes(self, classes: int) -> int:
        return self.restarts

    def walk(self, threat: Threat) -> Walk:
        """The schedule for the norm: with momentum, or sparse under L1."""
        return {"L1": Sparse}.get(threat.norm, Ball)(self.steps, self.rho)

    def begin(self, task: Task) -> State:
        walk = self.walk(task.threat)
        state = walk.begin(task.x, task.threat, task.noise)
        return {**state, "looks": task.y * 0 + walk.looks}

    def move(self, state: State, look: Look, task: Task) -> State:
        return self.walk(task.threat).move(state, look, task.x, task.threat)

    def over(self, state: State, taken: Tensor) -> Tensor:
        return taken >= state["looks"] - 1


@ATTACKS.register("apgd-ce", aliases=("apgd",), pattern=r"apgd-ce-(?P<steps>\d+)")
@dataclass(frozen=True, kw_only=True)
class CrossEntropy(APGD):
    """Auto-PGD on the cross-entropy."""

    def loss(self, out: Output, state: State, task: Task) -> Tensor:
        return losses.cross_entropy(out.logits, task.y)


@ATTACKS.register("apgd-dlr", pattern=r"apgd-dlr-(?P<steps>\d+)")
@dataclass(frozen=True, kw_only=True)
class LogitRatio(APGD):
    """Auto-PGD on the difference of logits ratio, which no rescaling of the logits can blunt."""

    min_classes: ClassVar[int] = 3

    def loss(self, out: Output, state: State, task: Task) -> Tensor:
        return losses.dlr(out.logits, task.y)


@ATTACKS.register("apgd-t", pattern=r"apgd-t-(?P<steps>\d+)")
@dataclass(frozen=True, kw_only=True)
class Targeted(APGD):
    """Auto-PGD on the targeted logit ratio, towards the most likely wrong classes in turn."""

    targets: Annotated[int, Field(ge=1)] = 9
    """How many wrong classes, by clean logit; with fewer than that, all of them."""

    min_classes: ClassVar[int] = 4

    def lanes(self, classes: int) -> int:
        return self.restarts * min(self.targets, classes - 1)

    def begin(self, task: Task) -> State:
        # Every restart of one target comes before the next target, as in the official code.
        return {**super().begin(task), "target": task.ranked(2 + task.lane // self.restarts)}

    def loss(self, out: Output, state: State, task: Task) -> Tensor:
        return losses.dlr_targeted(out.logits, task.y, state["target"])
