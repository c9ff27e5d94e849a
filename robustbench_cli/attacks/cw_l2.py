"""The minimal-norm attack of Carlini & Wagner (2017) in L2, https://arxiv.org/abs/1608.04644.

Not the margin inside PGD that tables call CW-k; that one is ``cw``.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from robustbench_cli.attacks import ATTACKS, IterativeAttack, Observation, Output, State, Task
from robustbench_cli.core import losses
from robustbench_cli.core.gradient_ascent import Steps
from robustbench_cli.core.registry import Number
from robustbench_cli.core.threat import over


def opened(x: Tensor) -> Tensor:
    """The variable whose tanh is the image; shrunk, because 0 and 1 would be infinitely far."""
    return ((2 * x - 1) * 0.999999).atanh()


def adam(state: State, grad: Tensor, rate: float) -> State:
    """One step of Adam against the gradient by ``x``, each row at its own ``turn``."""
    grad = grad * 2 * state["x"] * (1 - state["x"])  # the derivative of the tanh
    turn = state["turn"] + 1
    at = over(turn, grad).to(grad)
    m = 0.9 * state["m"] + 0.1 * grad
    v = 0.999 * state["v"] + 0.001 * grad * grad
    w = state["w"] - rate * m / (1 - 0.9**at) / ((v / (1 - 0.999**at)).sqrt() + 1e-8)
    return {"w": w, "m": m, "v": v, "turn": turn, "x": (w.tanh() + 1) / 2}


@ATTACKS.register("cw-l2", aliases=("cwl2",), pattern=r"cw-?l2-?(?P<steps>\d+)")
@dataclass(frozen=True, kw_only=True)
class CWL2(IterativeAttack):
    """Adam on |x' - x|^2 + c max(z_y - max z + kappa, 0), with a binary search for c.

    The authors take 10000 steps per c and give c up once the summed loss of the batch stalls.  Here
    it is 1000 steps, and an example is judged by itself, once c has broken it: one that is all
    black and white hardly moves at first, and would always seem to have stalled.
    """

    steps: Steps = 1000
    """At most so many steps for each c; every tenth of them progress is checked."""
    searches: Annotated[int, Field(ge=1)] = 9
    """How many values of c are tried."""
    rate: Annotated[Number, Field(gt=0)] = 0.01
    """Adam's learning rate."""
    c: Annotated[Number, Field(gt=0)] = 1e-3
    """The first c; it is multiplied by ten until an attack succeeds."""
    kappa: Annotated[Number, Field(ge=0)] = 0.0
    """By how many logits the image must be wrong."""

    norms: ClassVar[tuple[str, ...]] = ("L2",)

    @property
    def minimal(self) -> bool:
        return True

    def begin(self, task: Task) -> State:
        w, none = opened(task.x), torch.zeros_like(task.y)
        low, high = task.x.new_zeros(task.y.shape), task.x.new_full(task.y.shape, torch.inf)
        search = {"c": low + self.c, "low": low, "high": high, "tried": none}
        walk = {"w": w, "m": w * 0, "v": w * 0, "turn": none, "x": (w.tanh() + 1) / 2}
        return {**search, **walk, "cost": high, "broke": task.y < 0}

    def loss(self, out: Output, state: State, task: Task, step_index: Tensor) -> Tensor:
        return losses.margin(out.logits, task.y).clamp(max=self.kappa)

    def move(self, state: State, observation: Observation, task: Task) -> State:
        fresh, c, low, high = self.begin(task), state["c"], state["low"], state["high"]
        away = state["x"] - fresh["x"]
        cost = away.flatten(1).square().sum(1) + c * (self.kappa - observation.loss)
        moved = adam(state, 2 * away - over(c, away) * observation.grad, self.rate)
        broke = state["broke"] | (losses.margin(observation.logits, task.y) > self.kappa)
        check = state["turn"] % max(1, self.steps // 10) == 0
        stalled = check & broke & (cost > 0.9999 * state["cost"])
        ended = stalled | (moved["turn"] >= self.steps)
        low, high = torch.where(ended & ~broke, c, low), torch.where(ended & broke, c, high)
        c = torch.where(ended, torch.where(high < torch.inf, (low + high) / 2, 10 * c), c)
        cost = torch.where(check, cost, state["cost"])
        now = {**moved, "cost": cost, "broke": broke}
        now = {k: torch.where(over(ended, v), fresh[k], v) for k, v in now.items()}
        return {**now, "c": c, "low": low, "high": high, "tried": state["tried"] + ended}

    def over(self, state: State, step_index: Tensor) -> Tensor:
        return state["tried"] >= self.searches
