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
from robustbench_cli.defenses._weights import WeightPerturbation, move_weights, slope, weight_norm


@DEFENSES.register("amp")
@dataclass(frozen=True, kw_only=True)
class AMP(WeightPerturbation):
    """Take the gradient at weights that climbed the loss inside a ball of fixed ``radius``.

    A regulariser against overfitting, not against adversarial images.  All weights climb, biases
    and BatchNorm's included, and weight decay acts where they were.  The paper bounds the whole
    move; the code bounds each tensor's and lets BatchNorm's statistics follow every pass.  (It
    also clips gradients at norm 50; this does not.)  Small nets want a radius of 0.01 to 0.2.
    """

    radius: Annotated[Number, Field(ge=0)] = 0.5
    """Euclidean length of the largest move, epsilon."""
    rate: Annotated[Number, Field(gt=0)] = 1.0
    """What gradients are multiplied by to climb, zeta."""
    climbs: Steps = 1
    """How often they climb per batch, N."""
    variant: Literal["paper", "code"] = "paper"
    """Whose radius: of the whole move (paper) or of each tensor's (code)."""

    def idle(self, step: Step) -> bool:
        return self.radius == 0

    def moves(self, step: Step, params: list[Tensor], loss: Callable[[], Tensor]) -> list[Tensor]:
        gone = [p.new_zeros(()).expand_as(p) for p in params]
        mode: Mode = "frozen" if self.variant == "paper" else "train"
        for _ in range(self.climbs):
            with move_weights(params, gone):
                grads = slope(step, params, loss, mode)
            gone = self._bounded([m + self.rate * g for m, g in zip(gone, grads, strict=True)])
        return gone

    def _bounded(self, moves: list[Tensor]) -> list[Tensor]:
        groups = [moves] if self.variant == "paper" else [[m] for m in moves]
        shares = [(self.radius / (weight_norm(group) + 1e-12)).clamp(max=1) for group in groups]
        return [m * s for group, s in zip(groups, shares, strict=True) for m in group]
