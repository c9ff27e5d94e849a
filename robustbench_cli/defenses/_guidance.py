"""Boundary guidance: a natural network's logits guide a robust one (Cui et al., 2021).

https://arxiv.org/abs/2011.11164
"""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.losses import wide
from robustbench_cli.core.registry import Spec
from robustbench_cli.defenses import DEFENSES, Defense, Objective, Recipe
from robustbench_cli.defenses._step import Passes, Setting, Step
from robustbench_cli.models import MODELS, Classifier


def mean_squared_gap(logits: Tensor, others: Tensor) -> Tensor:
    """Return the squared difference (B) of two sets of logits (B, C), averaged over the classes."""
    return (wide(logits) - wide(others)).square().mean(1)


@dataclass(frozen=True, kw_only=True)
class Guided(Objective):
    """Base of objectives that train a natural network beside the robust one, which it guides."""

    natural: Annotated[str, Field(min_length=1)] | None = None
    """Architecture of the natural network, e.g. resnet-18; None: the model's own."""

    def check(self, recipe: Recipe, epochs: int) -> None:
        super().check(recipe, epochs)
        for part in recipe.modifiers:
            if self.natural and type(part).prepare is not Defense.prepare:
                raise UserError(
                    f"{DEFENSES.name_of(part)} changes the architecture, but not that of "
                    f"natural={self.natural}; leave natural out"
                )

    def auxiliary(self, setting: Setting) -> Classifier:
        if self.natural is None:
            net = setting.fresh()
        else:
            net = MODELS.build(Spec.parse(self.natural)).build(setting.shape)
        net.low_precision = setting.model.low_precision
        return net

    def guidance_loss(self, step: Step, logits: Passes) -> Tensor:
        """Return the guidance loss (B): mse(r(x_adv), n(x)) + criterion(n(x), y).

        r is the robust network and n the natural one.  The gradient of the squared difference
        reaches both; labels train the natural network only.
        """
        robust, natural = logits["adv"], step.auxiliary(self, Classifier)(step.x)
        return mean_squared_gap(robust, natural) + step.criterion(natural, step.y)
