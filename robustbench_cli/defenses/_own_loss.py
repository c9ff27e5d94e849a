"""Objectives that score labels by themselves."""

from robustbench_cli.core.errors import UserError
from robustbench_cli.defenses import DEFENSES, Modifier, Objective, Recipe


class OwnLoss(Objective):
    """An objective without the criterion that other parts may change."""

    def check(self, recipe: Recipe, epochs: int) -> None:
        for part in recipe.modifiers:
            if type(part).criterion is not Modifier.criterion:
                own, other = DEFENSES.name_of(self), DEFENSES.name_of(part)
                raise UserError(
                    f"{own} scores labels with a loss of its own; {other} would change a "
                    "criterion that is not used"
                )
