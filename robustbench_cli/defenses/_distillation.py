"""Parts shared by the distillation objectives (ARD, RSLAD, IAD, AKD2, BGAT).

Their papers are cited in the objectives' own files.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.losses import kl, picked, wide
from robustbench_cli.defenses import DEFENSES, Modifier, Objective, Recipe
from robustbench_cli.models import Classifier


class Distilled(Objective):
    """Base of objectives that learn from frozen teachers, given with ``--teacher RUN``."""

    teachers: ClassVar[int] = 1

    @property
    def uses_criterion(self) -> bool:
        """True if the loss scores labels with the criterion, which modifiers may change."""
        return False

    def check(self, recipe: Recipe, epochs: int) -> None:
        super().check(recipe, epochs)
        for part in recipe.modifiers:
            if not self.uses_criterion and type(part).criterion is not Modifier.criterion:
                own, other = DEFENSES.name_of(self), DEFENSES.name_of(part)
                raise UserError(
                    f"{own} as it is set scores no labels; {other} would change a criterion that "
                    "is not used"
                )


def teacher_logits(teacher: Classifier, x: Tensor) -> Tensor:
    """Return a frozen teacher's logits (B, C) on images (B, C, H, W), without a gradient."""
    with torch.no_grad():
        logits: Tensor = teacher(x)
    return logits


def softened_kl(logits: Tensor, target: Tensor, temperature: float) -> Tensor:
    """Return T^2 KL(softmax(target / T) || softmax(logits / T)) (B), with T the temperature.

    Args:
        logits: the student's (B, C).
        target: the teacher's (B, C).
    """
    return temperature**2 * kl(logits / temperature, target / temperature)


def label_likelihood(logits: Tensor, y: Tensor, power: float) -> Tensor:
    """Return softmax(logits)[y] ** power (B), for logits (B, C) and labels (B)."""
    return (power * picked(F.log_softmax(wide(logits), 1), y)).exp()
