"""The order in which attacks towards classes take the wrong ones."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from robustbench_cli.attacks._base import Attack

Targeting = Literal["logits", "malt"]
"""logits: largest clean logit first; malt: the nearest class first, were the model linear (Melamed,
Yehudai and Shamir, 2024, https://arxiv.org/abs/2407.02240)."""


@dataclass(frozen=True, kw_only=True)
class AimsAtClasses(Attack):
    """An attack that goes towards one wrong class after the other, by ``Task.ranked``."""

    omitted_at_default: ClassVar[tuple[str, ...]] = (*Attack.omitted_at_default, "targeting")

    targeting: Targeting = "logits"
    """The order of the target classes: logits, the largest clean logit first; malt, the class first
    whose boundary is nearest were the model linear, which costs a gradient for each of the (at most
    100) most likely wrong classes."""

    @property
    def nearest_first(self) -> bool:
        return self.targeting == "malt"

    @property
    def no_target(self) -> str:
        chosen = "targeting=malt chooses among classes, and with a target there is one"
        return chosen if self.nearest_first else super().no_target
