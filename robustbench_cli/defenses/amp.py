"""Adversarial model perturbation (Zheng et al., 2021), https://arxiv.org/abs/2010.04925."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from robustbench_cli.core.gradient_ascent import Steps
from robustbench_cli.core.model_modes import Mode
from robustbench_cli.core.registry import Number
from robustbench_cli.defenses import DEFENSES
from robustbench_cli.defenses._step import Step
from robustbench_cli.defenses._weights import (
    WeightPerturbation,
    loss_gradient,
    move_weights,
    weight_norm,
)


@DEFENSES.register("amp")
@dataclass(frozen=True, kw_only=True)
class AMP(WeightPerturbation):
    """Take the gradient at weights that ascend the loss within an L2 ball of fixed ``radius``.

    From d = 0, ``climbs`` times: d <- d + rate * grad L(w + d), scaled back onto the ball where it
    is longer.  The optimiser then uses the gradient at w + d.  A regulariser against overfitting,
    not a defense against adversarial images.  All trained weights move, biases and BatchNorm's
    included, and weight decay acts at w.  The paper bounds the norm of the whole perturbation; the
    code bounds each tensor's and updates BatchNorm's running statistics in every pass.  The code
    also clips gradients at norm 50, which this does not.  Small networks want a radius of 0.01 to
    0.2.
    """

    radius: Annotated[Number, Field(ge=0)] = 0.5
    """Largest Euclidean norm of the perturbation, epsilon."""
    rate: Annotated[Number, Field(gt=0)] = 1.0
    """Step size of the ascent: gradients are multiplied by it, zeta."""
    climbs: Steps = 1
    """Ascent steps per batch, N."""
    variant: Literal["paper", "code"] = "paper"
    """The radius bounds the whole perturbation (paper) or each tensor's (code)."""

    def idle(self, step: Step) -> bool:
        return self.radius == 0

    def perturbation(
        self, step: Step, params: list[Tensor], loss: Callable[[], Tensor]
    ) -> list[Tensor]:
        delta = [p.new_zeros(()).expand_as(p) for p in params]
        mode: Mode = "frozen" if self.variant == "paper" else "train"
        for _ in range(self.climbs):
            with move_weights(params, delta):
                grads = loss_gradient(step, params, loss, mode)
            delta = self._bounded([m + self.rate * g for m, g in zip(delta, grads, strict=True)])
        return delta

    def _bounded(self, moves: list[Tensor]) -> list[Tensor]:
        """Scale the perturbation, or each tensor of it, to at most ``radius``."""
        groups = [moves] if self.variant == "paper" else [[m] for m in moves]
        shares = [(self.radius / (weight_norm(group) + 1e-12)).clamp(max=1) for group in groups]
        return [m * s for group, s in zip(groups, shares, strict=True) for m in group]
