"""Bilateral adversarial training (Wang and Zhang, 2019), https://arxiv.org/abs/1811.10716."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.gradient_ascent import Steps, StepSize, ascend
from robustbench_cli.core.losses import cross_entropy, wide
from robustbench_cli.core.registry import Number
from robustbench_cli.defenses import DEFENSES, Adversarial, Recipe
from robustbench_cli.defenses._step import Passes, Step
from robustbench_cli.defenses.label_smoothing import LabelSmoothing


@DEFENSES.register("bilateral", aliases=("bat",))
@dataclass(frozen=True, kw_only=True)
class Bilateral(Adversarial):
    """Train on images moved towards their most confusing class, with adversarially smoothed labels.

    The most confusing class is the wrong one with the largest clean logit.  x_adv is one descent
    step of eps on the cross-entropy to that class, from a uniform start, in eval mode.  The soft
    label gives each wrong class a share that grows with its -log p(x), and the true class ``beta``
    times the largest of them; the loss is the criterion on (x_adv, soft label).

    The paper's better model is trained at half the radius it is evaluated at (4/255 and 8/255).
    Under AutoAttack it is far weaker than first reported (29.35 % where the paper's attacks left
    58.6): always evaluate it with that.
    """

    beta: Annotated[Number, Field(ge=1)] = 9.0
    """Ratio of the true class's share to the largest wrong one."""
    gamma: Annotated[Number, Field(gt=0)] = 0.01
    """Offset that gives the most confusing class a share above zero."""
    steps: Steps = 1
    step: StepSize = 1.0

    one_label: ClassVar[bool] = True

    def check(self, recipe: Recipe, epochs: int) -> None:
        if any(isinstance(part, LabelSmoothing) for part in recipe.modifiers):
            raise UserError("bilateral makes soft labels of its own; leave label-smoothing out")

    def crafted(self, step: Step) -> Mapping[str, Tensor]:
        with torch.no_grad():
            clean = wide(step.model(step.x))
        wrong = torch.ones_like(clean).scatter(1, step.y[:, None], 0) > 0
        target = clean.masked_fill(~wrong, float("-inf")).argmax(1)
        moved = ascend(
            step.model, _targeted_objective, target, step.x, step.threat, step.noise, self.climb
        )
        return {"adv": moved, "labels": self.labels(clean, wrong)}

    def labels(self, clean: Tensor, wrong: Tensor) -> Tensor:
        """Return the soft labels (B, C) of the paper's label perturbation.

        Args:
            clean: logits (B, C) on clean images.
            wrong: bool (B, C), True for all classes but the true one.
        """
        unlikely = -(clean.softmax(1) + 1e-8).log()
        least = unlikely.masked_fill(~wrong, float("inf")).amin(1, keepdim=True)
        excess = (unlikely - least + self.gamma) * wrong
        shares = excess / excess.sum(1, keepdim=True)
        away = 1 / (1 + self.beta * shares.amax(1, keepdim=True))
        return torch.where(wrong, away * shares, 1 - away)

    def loss(self, step: Step, logits: Passes) -> Tensor:
        return step.criterion(logits["adv"], logits.inputs["labels"])


def _targeted_objective(logits: Tensor, target: Tensor) -> Tensor:
    """Return the objective (B) of a targeted attack, which ascent maximises."""
    return -cross_entropy(logits, target)
