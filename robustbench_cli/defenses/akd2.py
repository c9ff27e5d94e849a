"""Distillation from two teachers (Chen et al., 2021), https://openreview.net/forum?id=qZzy5urZw9."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from robustbench_cli.core.registry import Number
from robustbench_cli.defenses import DEFENSES
from robustbench_cli.defenses._distillation import Distilled, answer, softened
from robustbench_cli.defenses._step import Passes, Step
from robustbench_cli.defenses.pgd_at import PGDAT

Weight = Annotated[Number, Field(ge=0, le=1)]


@DEFENSES.register("akd2")
@dataclass(frozen=True, kw_only=True)
class AKD2(Distilled, PGDAT):
    """The criterion on attacked images, and the answers of two teachers to the same images.

    Name the robust one first: ``--teacher ROBUST --teacher NATURAL``.  Weights and temperature
    are those of Zhu et al. (2022, arXiv 2106.04928), who compare with it; the authors' own code
    has ``robust=0.6,natural=0.1,temperature=2``.  Attacked in train mode, as in both codes.
    """

    robust: Weight = 0.5
    """Weight of the robust teacher."""
    natural: Weight = 0.25
    """Weight of the natural teacher; the criterion has what is left of 1."""
    temperature: Annotated[Number, Field(gt=0)] = 1.0
    """What logits are divided by before they are compared, T; the KL is multiplied by T^2."""

    teachers: ClassVar[int] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.robust + self.natural > 1:
            raise ValueError(
                f"robust={self.robust:g} and natural={self.natural:g} are more than 1 together"
            )

    @property
    def scored(self) -> bool:
        return self.robust + self.natural < 1

    def crafted(self, step: Step) -> Mapping[str, Tensor]:
        adv = self.perturb(step)
        robust, natural = (answer(teacher, adv) for teacher in step.teachers)
        return {"adv": adv, "robust": robust, "natural": natural}

    def loss(self, step: Step, logits: Passes) -> Tensor:
        natural = softened(logits["adv"], logits.inputs["natural"], self.temperature)
        taught = self.robust * self.distance(logits) + self.natural * natural
        rest = 1 - self.robust - self.natural
        return rest * step.criterion(logits["adv"], step.y) + taught

    def distance(self, logits: Passes) -> Tensor:
        """How far the student is from the robust teacher (B)."""
        return softened(logits["adv"], logits.inputs["robust"], self.temperature)
