"""Adversarially robust distillation (Goldblum et al., 2020), https://arxiv.org/abs/1905.09747."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from robustbench_cli.core.registry import Number
from robustbench_cli.defenses import DEFENSES
from robustbench_cli.defenses._distillation import Distilled, softened_kl, teacher_logits
from robustbench_cli.defenses._step import Passes, Step
from robustbench_cli.defenses.pgd_at import PGDAT


@DEFENSES.register("ard")
@dataclass(frozen=True, kw_only=True)
class ARD(Distilled, PGDAT):
    """PGD-AT with a robust teacher's soft answer to the clean image in place of the label.

    alpha T^2 KL(teacher(x) || f(x_adv)) + (1 - alpha) criterion(f(x), y), logits in the KL divided
    by T, and x_adv from PGD on cross-entropy.  The teacher is a finished run: ``--teacher RUN``.

    The paper sums the KL over the classes; the code divides it by their number, and its learning
    rate is tuned for that: the code is followed.  As in the code, the student is attacked in train
    mode, and the clean images go through it even where ``alpha=1`` leaves them out of the loss.
    The code's random start is clipped to [0, 1] after the first step only, here at once.  With a
    natural teacher the result falls behind plain ``pgd-at``.
    """

    alpha: Annotated[Number, Field(ge=0, le=1)] = 1.0
    """Weight of the distillation term; the criterion on clean images has the rest."""
    temperature: Annotated[Number, Field(gt=0)] = 30.0
    """Temperature T by which both logits are divided."""
    variant: Literal["paper", "code"] = "code"
    """The KL is the sum over the classes (paper) or that divided by their number (code)."""

    branches: ClassVar[int] = 2

    @property
    def uses_criterion(self) -> bool:
        return self.alpha < 1

    def crafted(self, step: Step) -> Mapping[str, Tensor]:
        return {"adv": self.perturb(step), "taught": teacher_logits(step.teachers[0], step.x)}

    def loss(self, step: Step, logits: Passes) -> Tensor:
        learned = self.distance(logits)
        return self.alpha * learned + (1 - self.alpha) * step.criterion(logits["clean"], step.y)

    def distance(self, logits: Passes) -> Tensor:
        """Return the distillation loss (B) of the student on adversarial images."""
        gap = softened_kl(logits["adv"], logits.inputs["taught"], self.temperature)
        return gap / (logits["adv"].shape[1] if self.variant == "code" else 1)
