"""TRADES (Zhang et al., 2019), https://arxiv.org/abs/1901.08573, equation 5.

min over the weights of  CE(f(x), y) + beta max over x' in the ball of KL(f(x) || f(x'))
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.gradient_ascent import Start, StepSize, ascend, fixed_logits
from robustbench_cli.core.losses import kl
from robustbench_cli.core.registry import Number
from robustbench_cli.defenses import DEFENSES, Adversarial, Recipe
from robustbench_cli.defenses._step import Passes, Step


@DEFENSES.register("trades")
@dataclass(frozen=True, kw_only=True)
class Trades(Adversarial):
    """The clean criterion plus ``beta`` times the KL from clean to adversarial predictions.

    The paper writes the boundary term as a cross-entropy; the authors' code has the KL divergence,
    whose gradient by the weights differs, and so has this.  Their code makes three training passes
    (clean, adversarial, clean); here the two clean ones are one: without dropout the gradient is
    the same, and BatchNorm sees one clean batch instead of two.  Inner steps are the code's 0.007
    at eps 0.031; in L2 the code's are 2 eps / steps, which is ``trades:step=1/5`` with its ten.
    The start is clipped to [0, 1] here; in the code, where the first gradient is taken, it may
    leave that by 0.001 or so.
    """

    beta: Annotated[Number, Field(ge=0)] = 6.0
    """Weight of the boundary term, 1/lambda in the paper."""
    step: StepSize = 7 / 31
    """Step size as a fraction of eps: 0.007 at eps 0.031."""
    start: Start = "gauss"
    """Where the inner attack begins: by default at the clean image plus 0.001 N(0, 1), because the
    gradient of the KL is zero at the clean image itself."""

    branches: ClassVar[int] = 2

    def check(self, recipe: Recipe, epochs: int) -> None:
        if self.start == "clean":
            raise UserError(
                f"{DEFENSES.name_of(self)}: start='clean' has a zero KL gradient, its sign would "
                "be rounding noise; use start=gauss or start=uniform"
            )

    def perturb(self, step: Step) -> Tensor:
        clean_logits = fixed_logits(step.model, step.x)
        return ascend(step.model, kl, clean_logits, step.x, step.threat, step.noise, self.climb)

    def loss(self, step: Step, logits: Passes) -> Tensor:
        clean_loss = step.criterion(logits["clean"], step.y)
        return clean_loss + self.beta * kl(logits["adv"], logits["clean"])
