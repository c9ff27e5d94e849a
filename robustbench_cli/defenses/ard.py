"""Adversarially robust distillation (Goldblum et al., 2020), https://arxiv.org/abs/1905.09747."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from robustbench_cli.core.registry import Number
from robustbench_cli.defenses import DEFENSES
from robustbench_cli.defenses._distillation import Distilled, answer, softened
from robustbench_cli.defenses._step import Passes, Step
from robustbench_cli.defenses.pgd_at import PGDAT


@DEFENSES.register("ard")
@dataclass(frozen=True, kw_only=True)
class ARD(Distilled, PGDAT):
    """Answer the attacked image as a robust teacher (``--teacher RUN``) answers the clean one.

    T^2 KL between softened answers, on the images that maximise cross-entropy.  The paper sums
    the KL over the classes; the code divides by their number, which its learning rate goes with:
    the code is followed.  As there, the net is attacked in train mode and sees the clean images
    even where ``alpha=1`` leaves them out of the loss.  With a natural teacher it falls behind
    plain ``pgd-at``.
    """

    alpha: Annotated[Number, Field(ge=0, le=1)] = 1.0
    """Weight of the teacher's answers; the criterion on clean images has the rest."""
    temperature: Annotated[Number, Field(gt=0)] = 30.0
    """What logits are divided by before they are compared, T."""
    variant: Literal["paper", "code"] = "code"
    """Whether the KL is the sum over the classes (paper) or divided by their number (code)."""

    branches: ClassVar[int] = 2

    @property
    def scored(self) -> bool:
        return self.alpha < 1

    def crafted(self, step: Step) -> Mapping[str, Tensor]:
        return {"adv": self.perturb(step), "taught": answer(step.teachers[0], step.x)}

    def loss(self, step: Step, logits: Passes) -> Tensor:
        learned = self.distance(logits)
        return self.alpha * learned + (1 - self.alpha) * step.criterion(logits["clean"], step.y)

    def distance(self, logits: Passes) -> Tensor:
        """How far the student is from what it should answer (B)."""
        gap = softened(logits["adv"], logits.inputs["taught"], self.temperature)
        return gap / (logits["adv"].shape[1] if self.variant == "code" else 1)
