"""Geometry-aware instance reweighting (Zhang et al., 2021), https://arxiv.org/abs/2010.01736.

min over the weights of f:  sum_i omega_i CE(f(x'_i), y_i) / sum_i omega_i,  x' being PGD's images
and omega = (1 + tanh(lambda + 5 (1 - 2 kappa / K))) / 2
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.gradient_ascent import Iterate, StepSize, ascend, projected_step
from robustbench_cli.core.losses import cross_entropy
from robustbench_cli.core.registry import Number
from robustbench_cli.defenses import DEFENSES, Adversarial, Recipe
from robustbench_cli.defenses._step import Passes, Step


@DEFENSES.register("gairat")
@dataclass(frozen=True, kw_only=True)
class GAIRAT(Adversarial):
    """PGD-AT that weighs each example with how few steps of the inner attack misclassify it.

    The weights of a batch average to 1.  The paper's text calls kappa the least number of steps
    until an example is misclassified; its algorithm and the code count the iterates, the start
    included and the last one not, that are still right, which is more for an example that comes
    back.  The count is followed.  The code rounds K / 2 down, which for an odd K is not the paper's
    formula; the formula is followed.  The inner attack is the code's: 10 steps of 0.007 at eps
    0.031, uniform start, eval mode; so are lambda -1 and the first weighted epoch, the 60th.  The
    code's schedules for lambda and its other weight functions are left out.
    """

    shift: Number = -1.0
    """Lambda in the weights: a large one makes all of them equal, which is PGD-AT."""
    warmup: Annotated[int, Field(ge=0)] = 59
    """Epochs with equal weights at the beginning (burn-in); the official 60 counts from one."""
    step: StepSize = 7 / 31
    """Step size as a fraction of eps: 0.007 at eps 0.031."""

    one_label: ClassVar[bool] = True

    def check(self, recipe: Recipe, epochs: int) -> None:
        super().check(recipe, epochs)
        if self.warmup >= epochs:
            raise UserError(
                f"gairat would weigh nothing: it starts after {self.warmup} epochs and the run has "
                f"{epochs}; write gairat:warmup=0"
            )

    def crafted(self, step: Step) -> Mapping[str, Tensor]:
        kappa = torch.zeros_like(step.y)

        def counted(at: Iterate) -> Tensor:
            kappa.add_(at.logits.argmax(1) == step.y)
            return projected_step(at.x_adv, at.grad, step.x, step.threat, self.step)

        problem = step.model, cross_entropy, step.y, step.x, step.threat, step.noise
        return {"adv": ascend(*problem, self.climb, counted), "kappa": kappa}

    def loss(self, step: Step, logits: Passes) -> Tensor:
        losses = step.criterion(logits["adv"], step.y)
        if step.epoch < self.warmup:
            return losses
        omega = self.omega(logits.inputs["kappa"].to(losses))
        return losses * omega * step.size / step.total(omega.sum())

    def omega(self, kappa: Tensor) -> Tensor:
        """Return the weights (B) in (0, 1) of counts (B), before they are normalised."""
        # (1 + tanh z) / 2 is sigmoid(2 z), which keeps its digits where tanh is near -1.
        return torch.sigmoid(2 * (self.shift + 5 * (1 - 2 * kappa / self.steps)))
