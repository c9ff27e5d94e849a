"""Min-max over domains, APGDA (Wang et al., 2021), https://arxiv.org/abs/1906.03563."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from robustbench_cli.attacks import ATTACKS, Iterated, Observation, Output, State, Task
from robustbench_cli.core.domain_weights import DomainWeights, first, towards_worst
from robustbench_cli.core.gradient_ascent import Steps, StepSize
from robustbench_cli.core.losses import Criterion, cross_entropy, cw_margin
from robustbench_cli.core.registry import Number

_LOSSES: dict[str, Criterion] = {"cw": cw_margin, "ce": cross_entropy}


@ATTACKS.register("min-max", aliases=("apgda",), pattern=r"min-max-?(?P<steps>\d+)")
@dataclass(frozen=True, kw_only=True)
class MinMax(Iterated):
    """One perturbation against several domains, the more so the less they are fooled.

    For ``advbench joint``, where domains are runs, images or transforms; one model alone is one
    domain, and this is PGD.  After each step of the image the weights climb the losses at the new
    image.  Written from the formulas, with true labels: the published code has the wrong loss and,
    for images and transforms, the wrong sign.  Defaults are its 50 steps, beta 50 and gamma 3, but
    images take steepest steps of eps/4: in Linf they found as much as the paper's raw gradient
    (``alpha=4``) or more.  In L1, where a steepest step is of few pixels, take that.  They begin
    anywhere in the ball, the paper's at noise of 0.1, and those that share a change at none.  For
    those the code takes gamma 4, which is not the default here, and the paper's optional term for
    transforms, 0.5 Lambda |t(x + delta) - t(x)|, is not included.
    """

    nested_steps: ClassVar[bool] = True

    weights: DomainWeights = "min-max"
    """Of the domains: min-max, avg (all the same), or fixed ones as 0.5/0.3/0.2."""
    gamma: Annotated[Number, Field(gt=0)] = 3.0
    """What keeps weights alike: large is the average, small the worst domain alone."""
    beta: Annotated[Number, Field(gt=0)] = 50.0
    """The weights step by 1/beta."""
    alpha: Annotated[Number, Field(gt=0)] | None = None
    """Follow the raw gradient by 1/alpha, as the paper does; None: steepest steps of ``step``."""
    climbs: Literal["cw", "ce"] = "cw"
    """What is minimised per domain: the C&W margin with kappa 50, or minus cross-entropy."""
    steps: Steps = 50
    step: StepSize = 0.25

    def begin(self, task: Task) -> State:
        each = task.y.view(len(task.y), -1)
        weights = first(self.weights, task.clean.new_empty(each.shape))
        # The image steps first, under these weights.
        return {**super().begin(task), "weights": weights, "pace": weights[:, :1] * 0}

    def losses(self, logits: Tensor, task: Task) -> Tensor:
        """F (B, K): how far each domain is from being fooled, but for a constant."""
        found = -_LOSSES[self.climbs](logits.flatten(0, -2), task.y.flatten())
        return found.view(len(logits), -1)

    def weighed(self, losses: Tensor, state: State) -> Tensor:
        """The weights (B, K) that go with these losses at the image of ``state``."""
        return towards_worst(state["weights"], losses.detach(), self.gamma, state["pace"])

    def loss(self, out: Output, state: State, task: Task, step_index: Tensor) -> Tensor:
        losses = self.losses(out.logits, task)
        return -(self.weighed(losses, state) * losses).sum(1)

    def move(self, state: State, observation: Observation, task: Task) -> State:
        moved = super().move(state, observation, task)
        if self.alpha is not None:
            moved["x"] = task.threat.project(state["x"] + observation.grad / self.alpha, task.x)
        pace = 1 / self.beta if self.weights == "min-max" else 0.0
        weights = self.weighed(self.losses(observation.logits, task), state)
        return {**moved, "weights": weights, "pace": torch.full_like(state["pace"], pace)}

    def diagnostics(self, state: State) -> Tensor:
        return state["weights"]
