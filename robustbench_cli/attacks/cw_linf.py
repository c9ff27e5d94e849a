"""The minimum-norm attack of Carlini & Wagner (2017) in Linf, https://arxiv.org/abs/1608.04644."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from robustbench_cli.attacks import ATTACKS, IterativeAttack, Observation, Output, State, Task
from robustbench_cli.attacks.cw_l2 import adam_in_tanh_space, to_tanh_space
from robustbench_cli.core import losses
from robustbench_cli.core.gradient_ascent import Steps
from robustbench_cli.core.registry import Number
from robustbench_cli.core.threat import over


@ATTACKS.register("cw-linf", aliases=("cwlinf",), pattern=r"cw-?linf-?(?P<steps>\d+)")
@dataclass(frozen=True, kw_only=True)
class CWLinf(IterativeAttack):
    """Adam on sum(max(|x' - x| - tau, 0)) + c max(z_y - max_wrong z, 0), for decreasing tau.

    Section VI.C of the paper, untargeted.  A round that succeeds decreases tau, one that fails
    doubles c; each round starts from the image at which the previous one ended.  Parameters are
    those of the authors' code, which attacks one image at a time.  Most of the cost are the
    failing rounds at the end: 21 times ``steps``.
    """

    steps: Steps = 1000
    """Most Adam steps per round."""
    rate: Annotated[Number, Field(gt=0)] = 5e-3
    """Adam's learning rate."""
    decay: Annotated[Number, Field(gt=0, lt=1)] = 0.9
    """The next tau as a share of the distance reached; nearer to 1 is more accurate."""
    c: Annotated[Number, Field(gt=0)] = 1e-5
    """The first c."""
    largest: Annotated[Number, Field(gt=0)] = 20.0
    """The attack on an example ends when c exceeds this."""
    least: Annotated[Number, Field(gt=0)] = 1 / 256
    """The attack on an example ends when tau is at most this."""

    norms: ClassVar[tuple[str, ...]] = ("Linf",)

    @property
    def planned_passes(self) -> int:
        return 2 * self.steps

    @property
    def minimal(self) -> bool:
        return True

    def begin(self, task: Task) -> State:
        w, one = to_tanh_space(task.x), task.x.new_ones(task.y.shape)
        state = {"w": w, "m": w * 0, "v": w * 0, "t": torch.zeros_like(task.y)}
        return {**state, "x": (w.tanh() + 1) / 2, "c": one * self.c, "tau": one}

    def loss(self, out: Output, state: State, task: Task, step_index: Tensor) -> Tensor:
        return losses.margin(out.logits, task.y).clamp(max=0)

    def move(self, state: State, observation: Observation, task: Task) -> State:
        c, tau = state["c"], state["tau"]
        away = state["x"] - task.x
        excess = away.abs() - over(tau, away)
        cost = excess.clamp_min(0).flatten(1).sum(1) - c * observation.loss
        wrong = observation.logits.argmax(1) != task.y
        won = wrong & (cost < 1e-4 * c)
        lost = ~won & ((state["t"] + 1) % self.steps == 0)
        slope = away.sign() * (excess > 0) - over(c, away) * observation.grad
        moved = adam_in_tanh_space(state, slope, self.rate)
        for name in ("m", "v", "t"):
            moved[name] = torch.where(over(won, moved[name]), 0, moved[name])
        for name in ("w", "x"):  # the next round starts at the image that ended this one
            moved[name] = torch.where(over(won, moved[name]), state[name], moved[name])
        reached = self.decay * torch.minimum(tau, task.threat.distance(state["x"], task.x))
        return {**moved, "c": torch.where(lost, 2 * c, c), "tau": torch.where(won, reached, tau)}

    def over(self, state: State, step_index: Tensor) -> Tensor:
        return (state["tau"] <= self.least) | (state["c"] > self.largest)
