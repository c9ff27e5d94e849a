"""Introspective adversarial distillation (Zhu et al., 2022), https://arxiv.org/abs/2106.04928."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.losses import kl
from robustbench_cli.core.registry import Number
from robustbench_cli.defenses import DEFENSES, Objective, Recipe
from robustbench_cli.defenses._distillation import label_likelihood, softened_kl, teacher_logits
from robustbench_cli.defenses._step import Passes, Step
from robustbench_cli.defenses.akd2 import AKD2
from robustbench_cli.defenses.ard import ARD


@dataclass(frozen=True, kw_only=True)
class Introspective(Objective):
    """Base of objectives that weight a robust teacher by its probability of the true label.

    The teacher's term has the weight a = p_teacher(y | x_adv)^beta per example, and the student's
    own prediction on the clean image the weight 1 - a.
    """

    beta: Annotated[Number, Field(ge=0)] = 0.1
    """Exponent of the teacher's probability of the label; 0 trusts it fully."""
    begin: Annotated[int, Field(ge=0)] = 0
    """Epochs at the beginning in which the teacher is trusted fully; the codes have 60 (iad) and 40
    (iad-ii) of 200."""

    one_label: ClassVar[bool] = True
    branches: ClassVar[int] = 2

    def check(self, recipe: Recipe, epochs: int) -> None:
        super().check(recipe, epochs)
        if self.begin >= epochs:
            raise UserError(
                f"{DEFENSES.name_of(self)} would never look at its own answers: that starts after "
                f"{self.begin} epochs and the run has {epochs}; use begin=0"
            )

    def trust(self, step: Step, taught: Tensor) -> Tensor:
        """Return the weight of the teacher (B), in [0, 1].

        Args:
            taught: the teacher's logits (B, C) on adversarial images.
        """
        sure = label_likelihood(taught, step.y, self.beta)
        return sure if step.epoch >= self.begin else torch.ones_like(sure)


@DEFENSES.register("iad", aliases=("iad-i",))
@dataclass(frozen=True, kw_only=True)
class IAD(Introspective, ARD):
    """ARD that trusts its teacher in part, and the student's own clean prediction for the rest.

    The distillation term of ``ard`` becomes a KL(teacher(x) || f(x_adv)) + (1 - a) KL(f(x) ||
    f(x_adv)), with a = p_teacher(y | x_adv)^beta per example and the KL summed over the classes.
    The target f(x) of the second term is trained, too.  The code of ``iad`` leaves the first term
    unweighted; its code of ``iad-ii`` weights it, and so does the default here.

    For BatchNorm's statistics the code passes the attacked images twice and, once trust varies, the
    clean ones, too; here both go through the student once.  Starts are clipped to [0, 1] here, in
    the code not before the first step.
    """

    temperature: Annotated[Number, Field(gt=0)] = 1.0
    variant: Literal["paper", "code"] = "paper"
    """The teacher's term has the weight a (paper) or always 1 (code)."""

    def crafted(self, step: Step) -> Mapping[str, Tensor]:
        known = super().crafted(step)
        return {**known, "trust": self.trust(step, teacher_logits(step.teachers[0], known["adv"]))}

    def distance(self, logits: Passes) -> Tensor:
        trust = logits.inputs["trust"]
        gap = softened_kl(logits["adv"], logits.inputs["taught"], self.temperature)
        taught = trust * gap if self.variant == "paper" else gap
        return taught + (1 - trust) * kl(logits["adv"], logits["clean"])


@DEFENSES.register("iad-ii")
@dataclass(frozen=True, kw_only=True)
class IADII(Introspective, AKD2):
    """AKD2 that trusts its robust teacher in part, and the student's own clean prediction else.

    The robust teacher's term of ``akd2`` becomes a KL(robust(x_adv) || f(x_adv)) + (1 - a) KL(f(x)
    || f(x_adv)), with a = p_robust(y | x_adv)^beta per example.  Name the robust teacher first:
    ``--teacher ROBUST --teacher NATURAL``.
    """

    def crafted(self, step: Step) -> Mapping[str, Tensor]:
        known = super().crafted(step)
        return {**known, "trust": self.trust(step, known["robust"])}

    def distance(self, logits: Passes) -> Tensor:
        trust, scale = logits.inputs["trust"], self.temperature**2
        own = scale * kl(logits["adv"], logits["clean"])
        return trust * super().distance(logits) + (1 - trust) * own
