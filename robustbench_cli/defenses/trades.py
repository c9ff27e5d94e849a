"""TRADES (Zhang et al., 2019), https://arxiv.org/abs/1901.08573, equation 5."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.gradient_ascent import Start, StepSize, ascend
from robustbench_cli.core.losses import kl
from robustbench_cli.core.registry import Number
from robustbench_cli.defenses import DEFENSES, Adversarial, Recipe
from robustbench_cli.defenses._step import Passes, Step


@DEFENSES.register("trades")
@dataclass(frozen=True, kw_only=True)
class Trades(Adversarial):
    """The clean criterion plus ``beta`` times the KL from clean to adversarial predictions.

    The paper writes the boundary term as a cross-entropy, the code uses the KL divergence, whose
    outer gradient differs: the KL is followed.  The code's inner steps are 0.007 at eps 0.031;
    it makes three training passes (clean, adversarial, clean), here the clean one is shared:
    without dropout the gradient is the same, BatchNorm sees one clean batch instead of two.
    In L2 the code steps 2 eps / steps: ``trades:step=1/5`` with its ten.
    """

    beta: Annotated[Number, Field(ge=0)] = 6.0
    """Weight of the boundary term, 1/lambda."""
    step: StepSize = 7 / 31
    start: Start = "gauss"

    branches: ClassVar[int] = 2

    def perturb(self, step: Step) -> Tensor:
        with torch.no_grad():
            clean = step.model(step.x)
        return ascend(step.model, kl, clean, step.x, step.threat, step.noise, self.climb)

    def loss(self, step: Step, logits: Passes) -> Tensor:
        natural = step.criterion(logits["clean"], step.y)
        return natural + self.beta * kl(logits["adv"], logits["clean"])

    def check(self, recipe: Recipe, epochs: int) -> None:
        if self.start == "clean":
            raise UserError(
                f"{DEFENSES.name_of(self)}: start='clean' has a zero KL gradient, its sign would "
                "be rounding noise; use start=gauss or start=uniform"
            )
