"""Robust soft label distillation (Zi et al., 2021), https://arxiv.org/abs/2108.07969."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.gradient_ascent import Start, ascend, fixed_logits
from robustbench_cli.core.losses import kl
from robustbench_cli.core.registry import Number
from robustbench_cli.defenses import DEFENSES, Adversarial, Recipe
from robustbench_cli.defenses._distillation import Distilled
from robustbench_cli.defenses._step import Passes, Step

MOST_CLASSES = 10
"""Upper bound of the KL's divisor in variant "code".

On CIFAR-100 the code multiplies its mean over 100 classes by 10.
"""


@DEFENSES.register("rslad")
@dataclass(frozen=True, kw_only=True)
class RSLAD(Distilled, Adversarial):
    """TRADES with a robust teacher's prediction on the clean image in place of the label.

    With t = teacher(x), w KL(t || f(x_adv)) + (1 - w) KL(t || f(x)), and x_adv maximises KL(t ||
    f(x_adv)) from a Gaussian start.  Labels are never used.  The teacher is a finished run:
    ``--teacher RUN``.

    The paper sums the KL over the classes.  The code divides it by 10 on CIFAR-10 and CIFAR-100
    alike, and its published learning rate is tuned for that: the code is followed.  As in TRADES'
    code, its start may leave [0, 1] by 0.001 or so; here it is clipped.  With a natural teacher the
    result falls behind plain ``pgd-at``.
    """

    weight: Annotated[Number, Field(ge=0, le=1)] = 5 / 6
    """Weight of the KL on adversarial images, w; the KL on clean ones has the rest."""
    variant: Literal["paper", "code"] = "code"
    """The KL is the sum over the classes (paper) or that divided by their number, by 10 at most
    (code)."""
    start: Start = "gauss"

    branches: ClassVar[int] = 2
    unlabelled: ClassVar[bool] = True

    def check(self, recipe: Recipe, epochs: int) -> None:
        super().check(recipe, epochs)
        if self.start == "clean":
            raise UserError(
                f"{DEFENSES.name_of(self)}: start='clean' has a zero KL gradient where student "
                "and teacher agree; use start=gauss or start=uniform"
            )

    def crafted(self, step: Step) -> Mapping[str, Tensor]:
        taught = fixed_logits(step.teachers[0], step.x)
        adv = ascend(step.model, kl, taught, step.x, step.threat, step.noise, self.climb)
        return {"adv": adv, "taught": taught}

    def loss(self, step: Step, logits: Passes) -> Tensor:
        taught = logits.inputs["taught"]
        attacked, clean = kl(logits["adv"], taught), kl(logits["clean"], taught)
        gap = self.weight * attacked + (1 - self.weight) * clean
        return gap / (min(taught.shape[1], MOST_CLASSES) if self.variant == "code" else 1)
