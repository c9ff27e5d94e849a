"""Boundary guidance: a robust net follows a natural one's logits (arXiv 2011.11164)."""

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


def apart(logits: Tensor, others: Tensor) -> Tensor:
    """The mean over the classes of the squared difference (B) between logits (B, C)."""
    return (wide(logits) - wide(others)).square().mean(1)


@dataclass(frozen=True, kw_only=True)
class Guided(Objective):
    """A natural net is trained beside the robust one, in the same optimiser, and guides it."""

    natural: Annotated[str, Field(min_length=1)] | None = None
    """Architecture of the natural net, e.g. resnet-18; None: the same as the model's."""

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

    def guided(self, step: Step, logits: Passes) -> Tensor:
        """How far attacked logits are from the natural net's clean ones, and its criterion (B).

        Both nets learn from the distance; the labels reach the natural one alone.
        """
        robust, natural = logits["adv"], step.auxiliary(self, Classifier)(step.x)
        return apart(robust, natural) + step.criterion(natural, step.y)
