"""Adversarial weight perturbation (Wu et al., 2020), https://arxiv.org/abs/2004.05884, eq. 12."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.registry import Number
from robustbench_cli.defenses import DEFENSES, Objective, Recipe
from robustbench_cli.defenses._step import Step
from robustbench_cli.defenses._weights import WeightPerturbation, loss_gradient
from robustbench_cli.models import Classifier


@DEFENSES.register("awp")
@dataclass(frozen=True, kw_only=True)
class AWP(WeightPerturbation):
    """Take the gradient at weights moved uphill by ``gamma`` times each layer's norm.

    For each weight tensor w with more than one dimension: v = gamma * ||w|| * g / ||g||, with g the
    gradient of the objective's whole loss on its adversarial images; the optimiser uses the
    gradient at w + v, and its weight decay acts there.  One ascent step, from v = 0 in each
    iteration; biases and BatchNorm do not move.  Official defaults depend on the objective: gamma
    0.01 from the first epoch for AT, 0.005 from the tenth for TRADES and MART.
    """

    gamma: Annotated[Number, Field(ge=0)] | None = None
    """Norm of the perturbation relative to each weight tensor's; None: by the objective."""
    warmup: Annotated[int, Field(ge=0)] | None = None
    """Epochs trained without it at the beginning; None: by the objective."""

    held: ClassVar[bool] = True

    def fit(self, objective: Objective) -> "AWP":
        gamma, warmup = (0.01, 0) if objective.branches == 1 else (0.005, 9)
        return replace(
            self,
            gamma=gamma if self.gamma is None else self.gamma,
            warmup=warmup if self.warmup is None else self.warmup,
        )

    def check(self, recipe: Recipe, epochs: int) -> None:
        super().check(recipe, epochs)
        assert self.warmup is not None
        if self.warmup >= epochs:
            raise UserError(
                f"awp would never act: it starts after {self.warmup} epochs and the run has "
                f"{epochs}; write awp:warmup=0"
            )

    def idle(self, step: Step) -> bool:
        assert self.warmup is not None
        return step.epoch < self.warmup or self.gamma == 0

    def perturbed_weights(self, model: Classifier) -> list[Tensor]:
        named = model.named_parameters()
        return [p for n, p in named if p.ndim > 1 and n.endswith("weight")]

    def perturbation(
        self, step: Step, params: list[Tensor], loss: Callable[[], Tensor]
    ) -> list[Tensor]:
        assert self.gamma is not None
        grads = loss_gradient(step, params, loss)
        return [
            g * (self.gamma * p.detach().norm() / (g.norm() + 1e-20))
            for p, g in zip(params, grads, strict=True)
        ]
