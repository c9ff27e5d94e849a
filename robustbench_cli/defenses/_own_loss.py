"""Objectives whose loss on labels is their own, not the exchangeable criterion."""

from robustbench_cli.core.errors import UserError
from robustbench_cli.defenses import DEFENSES, Modifier, Objective, Recipe


class OwnLoss(Objective):
    """Base of objectives that do not use the criterion; modifiers that change it are refused."""

    def check(self, recipe: Recipe, epochs: int) -> None:
        for part in recipe.modifiers:
            if type(part).criterion is not Modifier.criterion:
                own, other = DEFENSES.name_of(self), DEFENSES.name_of(part)
                raise UserError(
                    f"{own} scores labels with a loss of its own; {other} would change a "
                    "criterion that is not used"
                )
