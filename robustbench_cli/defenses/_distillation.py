"""What learning from frozen teachers has in common (arXiv ids are in the objectives' files)."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.losses import kl, picked, wide
from robustbench_cli.defenses import DEFENSES, Modifier, Objective, Recipe
from robustbench_cli.models import Classifier


class Distilled(Objective):
    """An objective with a frozen teacher, which is named with ``--teacher RUN``."""

    teachers: ClassVar[int] = 1

    @property
    def scored(self) -> bool:
        """Whether labels are scored with the criterion, which other parts may change."""
        return False

    def check(self, recipe: Recipe, epochs: int) -> None:
        super().check(recipe, epochs)
        for part in recipe.modifiers:
            if not self.scored and type(part).criterion is not Modifier.criterion:
                own, other = DEFENSES.name_of(self), DEFENSES.name_of(part)
                raise UserError(
                    f"{own} as it is set scores no labels; {other} would change a criterion that "
                    "is not used"
                )


def answer(teacher: Classifier, x: Tensor) -> Tensor:
    """A frozen teacher's logits (B, C): nothing is learned through them."""
    with torch.no_grad():
        logits: Tensor = teacher(x)
    return logits


def softened(logits: Tensor, target: Tensor, temperature: float) -> Tensor:
    """T^2 KL(target || logits) (B), both logits (B, C) divided by the temperature T."""
    return temperature**2 * kl(logits / temperature, target / temperature)


def likelihood(logits: Tensor, y: Tensor, power: float) -> Tensor:
    """softmax(logits)[y] ** power (B), for logits (B, C) and labels (B)."""
    return (power * picked(F.log_softmax(wide(logits), 1), y)).exp()
