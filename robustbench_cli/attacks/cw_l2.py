"""The minimum-norm attack of Carlini & Wagner (2017) in L2, https://arxiv.org/abs/1608.04644.

PGD on its margin loss, which papers' tables call CW-k, is ``cw``.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from robustbench_cli.attacks import ATTACKS, IterativeAttack, Observation, Output, State, Task
from robustbench_cli.core import losses
from robustbench_cli.core.free_looks import surely_none
from robustbench_cli.core.gradient_ascent import Steps
from robustbench_cli.core.registry import Number
from robustbench_cli.core.threat import over


def to_tanh_space(x: Tensor) -> Tensor:
    """Return w (B, C, H, W) with (tanh(w) + 1) / 2 = ``x`` for images in [0, 1].

    As in the authors' code x is first shrunk by a factor of 0.999999, because pixels of 0 and 1
    have an infinite w.
    """
    return ((2 * x - 1) * 0.999999).atanh()


def adam_in_tanh_space(state: State, grad: Tensor, lr: float) -> State:
    """Take a descent step of Adam on w, given the gradient by x = (tanh(w) + 1) / 2.

    Args:
        state: ``x`` and ``w``, Adam's moments ``m`` and ``v``, and its step ``t`` (B); rows may be
            at different steps.
        grad: gradient by ``x`` (B, C, H, W).

    Returns:
        The same entries after the step.
    """
    grad = grad * 2 * state["x"] * (1 - state["x"])  # dx/dw
    t = state["t"] + 1
    power = over(t, grad).to(grad)
    m = 0.9 * state["m"] + 0.1 * grad
    v = 0.999 * state["v"] + 0.001 * grad * grad
    w = state["w"] - lr * m / (1 - 0.9**power) / ((v / (1 - 0.999**power)).sqrt() + 1e-8)
    return {"w": w, "m": m, "v": v, "t": t, "x": (w.tanh() + 1) / 2}


@ATTACKS.register("cw-l2", aliases=("cwl2",), pattern=r"cw-?l2-?(?P<steps>\d+)")
@dataclass(frozen=True, kw_only=True)
class CWL2(IterativeAttack):
    """Adam on |x' - x|^2 + c max(z_y - max_wrong z + kappa, 0), with a binary search for c.

    Section VI.A of the paper, untargeted; x' = (tanh(w) + 1) / 2 keeps images in the box, and Adam
    optimises w.  Unlike PGD it minimises the distance and needs no radius.

    The authors take 10000 steps per c and abort early when the summed loss of the batch stalls.
    Here it is 1000 steps, and each example is aborted on its own, once its loss stalls after this c
    has broken it or after the loss had gained at an earlier check: an image of black and white
    pixels alone hardly moves at first, where the derivative of the tanh is almost zero, and would
    always seem to have stalled.

    On 200 digits of five nets, with 150 steps for each of five c from 0.1, adv-lib 0.2.8 leaves the
    same images unbroken, and so does foolbox 3.3.4; but foolbox returns a black image for each of
    those and counts it as broken where the model gets black wrong.  Distances are those of both
    libraries to 0.4 %, except for one image that ends 8.5 % farther because it was aborted alone.
    """

    steps: Steps = 1000
    """Most Adam steps for each c; progress is checked every tenth of them."""
    searches: Annotated[int, Field(ge=1)] = 9
    """Number of values of c that are tried (binary search steps)."""
    rate: Annotated[Number, Field(gt=0)] = 0.01
    """Adam's learning rate."""
    c: Annotated[Number, Field(gt=0)] = 1e-3
    """The first c; it is multiplied by ten until an attack succeeds."""
    kappa: Annotated[Number, Field(ge=0)] = 0.0
    """Confidence: the logit margin by which the image must be misclassified."""

    norms: ClassVar[tuple[str, ...]] = ("L2",)

    @property
    def planned_passes(self) -> int:
        return 2 * self.steps * self.searches

    @property
    def minimal(self) -> bool:
        return True

    def begin(self, task: Task) -> State:
        w, none = to_tanh_space(task.x), torch.zeros_like(task.y)
        low, high = task.x.new_zeros(task.y.shape), task.x.new_full(task.y.shape, torch.inf)
        search = {"c": low + self.c, "low": low, "high": high, "tried": none}
        adam = {"w": w, "m": w * 0, "v": w * 0, "t": none, "x": (w.tanh() + 1) / 2}
        # gained: the loss was lower at a check than at the one before, with this c.
        came = {"cost": high, "broke": none > 0, "gained": none > 0}
        # first_x: where every search begins, and what distances are taken from.
        return {**search, **adam, **came, "first_x": adam["x"]}

    def loss(self, out: Output, state: State, task: Task, step_index: Tensor) -> Tensor:
        return losses.margin(out.logits, task.y).clamp(max=self.kappa)

    def move(self, state: State, observation: Observation, task: Task) -> State:
        c, low, high = state["c"], state["low"], state["high"]
        away = state["x"] - state["first_x"]
        cost = away.flatten(1).square().sum(1) + c * (self.kappa - observation.loss)
        slope = 2 * away - over(c, away) * observation.grad
        moved = adam_in_tanh_space(state, slope, self.rate)
        broke = state["broke"] | (losses.margin(observation.logits, task.y) > self.kappa)
        check = state["t"] % max(1, self.steps // 10) == 0
        gains = cost <= 0.9999 * state["cost"]
        stalled = check & (broke | state["gained"]) & ~gains
        gained = state["gained"] | (check & gains & (state["cost"] < torch.inf))
        ended = stalled | (moved["t"] >= self.steps)
        cost = torch.where(check, cost, state["cost"])
        now = {**state, **moved, "cost": cost, "broke": broke, "gained": gained}
        if surely_none(ended):
            return now
        fresh = self.begin(task)
        now = {k: torch.where(over(ended, v), fresh[k], v) for k, v in now.items()}
        low, high = torch.where(ended & ~broke, c, low), torch.where(ended & broke, c, high)
        c = torch.where(ended, torch.where(high < torch.inf, (low + high) / 2, 10 * c), c)
        return {**now, "c": c, "low": low, "high": high, "tried": state["tried"] + ended}

    def over(self, state: State, step_index: Tensor) -> Tensor:
        return state["tried"] >= self.searches
