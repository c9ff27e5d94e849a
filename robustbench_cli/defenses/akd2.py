"""Distillation from two teachers, AKD2 (Chen et al., 2021),
https://openreview.net/forum?id=qZzy5urZw9.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from robustbench_cli.core.registry import Number
from robustbench_cli.defenses import DEFENSES
from robustbench_cli.defenses._distillation import Distilled, softened_kl, teacher_logits
from robustbench_cli.defenses._step import Passes, Step
from robustbench_cli.defenses.pgd_at import PGDAT

Weight = Annotated[Number, Field(ge=0, le=1)]


@DEFENSES.register("akd2")
@dataclass(frozen=True, kw_only=True)
class AKD2(Distilled, PGDAT):
    """Distillation from a robust and a natural teacher on adversarial images, beside the labels.

    With x_adv from PGD on cross-entropy, in train mode as in both codes, and weights a, b: (1 - a -
    b) criterion(f(x_adv), y) + a T^2 KL(robust(x_adv) || f(x_adv)) + b T^2 KL(natural(x_adv) ||
    f(x_adv)), all logits divided by T.  Both teachers see the adversarial images.

    Name the robust teacher first: ``--teacher ROBUST --teacher NATURAL``.  Weights and temperature
    are those of Zhu et al. (2022, arXiv 2106.04928), who compare with it; the authors' own code has
    ``robust=0.6,natural=0.1,temperature=2``.
    """

    robust: Weight = 0.5
    """Weight of the robust teacher's KL, a."""
    natural: Weight = 0.25
    """Weight of the natural teacher's KL, b; the criterion has the remaining 1 - a - b."""
    temperature: Annotated[Number, Field(gt=0)] = 1.0
    """Temperature T of both KL terms, which are multiplied by T^2."""

    teachers: ClassVar[int] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.robust + self.natural > 1:
            raise ValueError(
                f"robust={self.robust:g} and natural={self.natural:g} are more than 1 together"
            )

    @property
    def uses_criterion(self) -> bool:
        return self.robust + self.natural < 1

    def crafted(self, step: Step) -> Mapping[str, Tensor]:
        adv = self.perturb(step)
        robust, natural = (teacher_logits(teacher, adv) for teacher in step.teachers)
        return {"adv": adv, "robust": robust, "natural": natural}

    def loss(self, step: Step, logits: Passes) -> Tensor:
        natural = softened_kl(logits["adv"], logits.inputs["natural"], self.temperature)
        taught = self.robust * self.distance(logits) + self.natural * natural
        rest = 1 - self.robust - self.natural
        return rest * step.criterion(logits["adv"], step.y) + taught

    def distance(self, logits: Passes) -> Tensor:
        """Return the distillation loss (B) towards the robust teacher."""
        return softened_kl(logits["adv"], logits.inputs["robust"], self.temperature)
