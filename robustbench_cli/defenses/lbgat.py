"""Learnable boundary guided adversarial training (Cui et al., 2021),
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
from robustbench_cli.defenses._guidance import Guided, apart
from robustbench_cli.defenses._step import Passes, Step
from robustbench_cli.defenses.pgd_at import PGDAT
from robustbench_cli.defenses.trades import Trades


@DEFENSES.register("lbgat")
@dataclass(frozen=True, kw_only=True)
class LBGAT(Guided, PGDAT):
    """Follow, on attacked images, the logits that a natural net in training has on clean ones.

    Known from a draft of the paper alone: its attack's start and mode (uniform, eval) are
    recalled.  The released "LBGAT0" and "LBGAT6" are ``lbgat-trades``.
    """

    step: StepSize = 7 / 31
    attack_mode: Mode = "eval"

    def loss(self, step: Step, logits: Passes) -> Tensor:
        return self.guided(step, logits)


@DEFENSES.register("lbgat-alp")
@dataclass(frozen=True, kw_only=True)
class LBGATALP(LBGAT):
    """``lbgat``, and a pull between the robust net's clean and attacked logits."""

    alpha: Annotated[Number, Field(ge=0)] = 1.0
    """Weight of their mean squared difference."""

    branches: ClassVar[int] = 2

    def loss(self, step: Step, logits: Passes) -> Tensor:
        return self.guided(step, logits) + self.alpha * apart(logits["adv"], logits["clean"])


@DEFENSES.register("lbgat-trades", pattern=r"lbgat(?P<beta>\d+)")
@dataclass(frozen=True, kw_only=True)
class LBGATTrades(Guided, Trades):
    """``trades`` with a natural net's guidance in the place of its criterion: "LBGAT0", "LBGAT6".

    The attack is that of TRADES, even with ``beta=0``, as in the code.
    """

    def loss(self, step: Step, logits: Passes) -> Tensor:
        return self.guided(step, logits) + self.beta * kl(logits["adv"], logits["clean"])
