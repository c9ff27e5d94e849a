"""Adversarial logit pairing (Kannan et al., 2018), https://arxiv.org/abs/1803.06373."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from robustbench_cli.core.gradient_ascent import Start, StepSize
from robustbench_cli.core.losses import wide
from robustbench_cli.core.model_modes import Mode
from robustbench_cli.core.registry import Number
from robustbench_cli.defenses import DEFENSES
from robustbench_cli.defenses._step import Passes, Step
from robustbench_cli.defenses.pgd_at import PGDAT


@DEFENSES.register("alp")
@dataclass(frozen=True, kw_only=True)
class ALP(PGDAT):
    """PGD-AT on clean and adversarial images, and a penalty on the distance of their logits.

    0.5 criterion(f(x), y) + 0.5 criterion(f(x_adv), y) + weight * mean_c (f(x) - f(x_adv))^2.
    Follows Pang et al.'s PyTorch code (AT_HE): an untargeted attack in eval mode from a Gaussian
    start, separate forward passes and so two BatchNorm batches, and the squared difference averaged
    over the classes (the paper's formula sums).  With ``he`` the paired logits are cosines, as
    there.
    """

    weight: Annotated[Number, Field(ge=0)] = 0.5
    """Weight of the pairing term, lambda."""
    step: StepSize = 7 / 31
    start: Start = "gauss"
    attack_mode: Mode = "eval"

    branches: ClassVar[int] = 2

    def loss(self, step: Step, logits: Passes) -> Tensor:
        clean, adversarial = wide(logits["clean"]), wide(logits["adv"])
        mixed = step.criterion(clean, step.y) + step.criterion(adversarial, step.y)
        gap = (clean - adversarial) / step.model.logit_scale
        return 0.5 * mixed + self.weight * gap.square().mean(1)
