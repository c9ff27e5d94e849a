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
from robustbench_cli.defenses._weights import WeightPerturbation, slope
from robustbench_cli.models import Classifier


@DEFENSES.register("awp")
@dataclass(frozen=True, kw_only=True)
class AWP(WeightPerturbation):
    """Take the gradient at weights moved uphill by ``gamma`` times each layer's norm.

    The whole loss is climbed, once, per weight tensor with more than one dimension, from zero in
    each iteration; weight decay acts at the moved weights.  Official defaults depend on the
    objective: gamma 0.01 from the first epoch for AT, 0.005 from the tenth for TRADES and MART.
    """

    gamma: Annotated[Number, Field(ge=0)] | None = None
    """Size of the move relative to each weight tensor's norm."""
    warmup: Annotated[int, Field(ge=0)] | None = None
    """Epochs trained without it."""

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

    def movable(self, model: Classifier) -> list[Tensor]:
        named = model.named_parameters()
        return [p for n, p in named if p.ndim > 1 and n.endswith("weight")]

    def moves(self, step: Step, params: list[Tensor], loss: Callable[[], Tensor]) -> list[Tensor]:
        assert self.gamma is not None
        grads = slope(step, params, loss)
        return [
            g * (self.gamma * p.detach().norm() / (g.norm() + 1e-20))
            for p, g in zip(params, grads, strict=True)
        ]
