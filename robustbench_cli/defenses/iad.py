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
from robustbench_cli.defenses._distillation import answer, likelihood, softened
from robustbench_cli.defenses._step import Passes, Step
from robustbench_cli.defenses.akd2 import AKD2
from robustbench_cli.defenses.ard import ARD


@dataclass(frozen=True, kw_only=True)
class Introspective(Objective):
    """Trust the teacher with the share p_teacher(y | attacked image) ** beta, else oneself."""

    beta: Annotated[Number, Field(ge=0)] = 0.1
    """How fast trust falls with the teacher's share of the label: 0 trusts it always."""
    begin: Annotated[int, Field(ge=0)] = 0
    """Epochs in which the teacher is trusted wholly; of the code's 200, 60 (iad) or 40 (iad-ii)."""

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
        """How far to trust the teacher (B), given its logits on attacked images."""
        sure = likelihood(taught, step.y, self.beta)
        return sure if step.epoch >= self.begin else torch.ones_like(sure)


@DEFENSES.register("iad", aliases=("iad-i",))
@dataclass(frozen=True, kw_only=True)
class IAD(Introspective, ARD):
    """``ard`` that trusts its teacher in part, and its own answer on the clean image for the rest.

    That answer learns, too.  The code does not weight the teacher's term; its ``iad-ii`` does, and
    so does this.  The KL is the sum over the classes.
    """

    temperature: Annotated[Number, Field(gt=0)] = 1.0
    variant: Literal["paper", "code"] = "paper"
    """Whether the teacher's term has the weight of trust (paper) or always 1 (code)."""

    def crafted(self, step: Step) -> Mapping[str, Tensor]:
        known = super().crafted(step)
        return {**known, "trust": self.trust(step, answer(step.teachers[0], known["adv"]))}

    def distance(self, logits: Passes) -> Tensor:
        trust = logits.inputs["trust"]
        gap = softened(logits["adv"], logits.inputs["taught"], self.temperature)
        taught = trust * gap if self.variant == "paper" else gap
        return taught + (1 - trust) * kl(logits["adv"], logits["clean"])


@DEFENSES.register("iad-ii")
@dataclass(frozen=True, kw_only=True)
class IADII(Introspective, AKD2):
    """``akd2`` that trusts its robust teacher in part, and its own clean answer for the rest.

    Name the robust one first: ``--teacher ROBUST --teacher NATURAL``.
    """

    def crafted(self, step: Step) -> Mapping[str, Tensor]:
        known = super().crafted(step)
        return {**known, "trust": self.trust(step, known["robust"])}

    def distance(self, logits: Passes) -> Tensor:
        trust, scale = logits.inputs["trust"], self.temperature**2
        own = scale * kl(logits["adv"], logits["clean"])
        return trust * super().distance(logits) + (1 - trust) * own
