"""Learnable boundary guidance_loss adversarial training (Cui et al., 2021),
https://arxiv.org/abs/2011.11164.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from robustbench_cli.core.gradient_ascent import StepSize
from robustbench_cli.core.losses import kl
from robustbench_cli.core.model_modes import Mode
from robustbench_cli.core.registry import Number
from robustbench_cli.defenses import DEFENSES
from robustbench_cli.defenses._guidance import Guided, mean_squared_gap
from robustbench_cli.defenses._step import Passes, Step
from robustbench_cli.defenses.pgd_at import PGDAT
from robustbench_cli.defenses.trades import Trades


@DEFENSES.register("lbgat")
@dataclass(frozen=True, kw_only=True)
class LBGAT(Guided, PGDAT):
    """Fit the logits on adversarial images to the clean logits of a natural network trained beside
    it.

    mse(r(x_adv), n(x)) + criterion(n(x), y), with r the robust network and n the natural one, both
    trained by the same optimiser; x_adv from PGD on cross-entropy.  r has no label term; the
    squared difference is averaged over the classes, and its gradient reaches both networks.

    Known from a draft of the paper alone: start and mode of the attack (uniform, eval) are
    recalled, not verified.  The released "LBGAT0" and "LBGAT6" are ``lbgat-trades``.
    """

    step: StepSize = 7 / 31
    attack_mode: Mode = "eval"

    def loss(self, step: Step, logits: Passes) -> Tensor:
        return self.guidance_loss(step, logits)


@DEFENSES.register("lbgat-alp")
@dataclass(frozen=True, kw_only=True)
class LBGATALP(LBGAT):
    """LBGAT with logit pairing: a penalty on the distance of the robust network's clean and
    attacked logits.

    The penalty is alpha * mse(r(x_adv), r(x)), averaged over the classes.
    """

    alpha: Annotated[Number, Field(ge=0)] = 1.0
    """Weight of the pairing term."""

    branches: ClassVar[int] = 2

    def loss(self, step: Step, logits: Passes) -> Tensor:
        return self.guidance_loss(step, logits) + self.alpha * mean_squared_gap(
            logits["adv"], logits["clean"]
        )


@DEFENSES.register("lbgat-trades", pattern=r"lbgat(?P<beta>\d+)")
@dataclass(frozen=True, kw_only=True)
class LBGATTrades(Guided, Trades):
    """TRADES with a natural network's guidance in place of its criterion: "LBGAT0" and "LBGAT6".

    mse(r(x_adv), n(x)) + criterion(n(x), y) + beta KL(r(x) || r(x_adv)).  The attack maximises
    TRADES' KL even with ``beta=0``, as in the code, whose start is not clipped to [0, 1] as it is
    here.
    """

    def loss(self, step: Step, logits: Passes) -> Tensor:
        return self.guidance_loss(step, logits) + self.beta * kl(logits["adv"], logits["clean"])
