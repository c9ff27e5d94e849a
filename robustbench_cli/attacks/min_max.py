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
    """One perturbation against several domains, weighted towards those that resist it most.

    Alternating projected gradient descent on the image and ascent on the domain weights (APGDA).
    It is made for ``advbench joint``, where domains are runs, images or transforms; with one model
    alone there is one domain, and this is PGD.  After each step of the image the weights ascend on
    the losses at the new image.

    It is written from the paper's formulas, with true labels: the published code has the wrong
    loss and, for images and transforms, the wrong sign.  The defaults are that code's 50 steps,
    beta 50 and gamma 3, with these departures: images take steepest steps of eps/4, which in Linf
    found as much as the paper's raw gradient (``alpha=4``) or more (in L1, where a steepest step
    moves few pixels, use ``alpha``); the start is uniform in the ball, where the paper's is noise
    of size 0.1, or zero for images that share a perturbation; for those the code has gamma 4; and
    the paper's optional term for transforms, 0.5 Lambda |t(x + delta) - t(x)|, is left out.
    """

    nested_steps: ClassVar[bool] = True

    weights: DomainWeights = "min-max"
    """Domain weights: min-max, avg (uniform), or fixed ones such as 0.5/0.3/0.2."""
    gamma: Annotated[Number, Field(gt=0)] = 3.0
    """Regularisation towards uniform weights: large values give the average, small values the
    worst domain alone."""
    beta: Annotated[Number, Field(gt=0)] = 50.0
    """The step size of the weights is 1/beta."""
    alpha: Annotated[Number, Field(gt=0)] | None = None
    """Step along the raw gradient times 1/alpha, as in the paper; None: steepest steps of
    ``step``."""
    climbs: Literal["cw", "ce"] = "cw"
    """The loss of each domain: the C&W margin with kappa 50, or the cross-entropy."""
    steps: Steps = 50
    step: StepSize = 0.25

    def begin(self, task: Task) -> State:
        each = task.y.view(len(task.y), -1)
        weights = first(self.weights, task.clean.new_empty(each.shape))
        # pace is 0 until the first step: the image moves once under the initial weights.
        return {**super().begin(task), "weights": weights, "pace": weights[:, :1] * 0}

    def losses(self, logits: Tensor, task: Task) -> Tensor:
        """Return F (B, D), the attack's loss in each of D domains; lower is closer to success.

        Args:
            logits: (B, D, K), or (B, K) of a single domain.
        """
        found = -_LOSSES[self.climbs](logits.flatten(0, -2), task.y.flatten())
        return found.view(len(logits), -1)

    def weighed(self, losses: Tensor, state: State) -> Tensor:
        """Return the domain weights (B, D) after one ascent step on ``losses`` (B, D)."""
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
