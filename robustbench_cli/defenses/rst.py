"""Robust self-training (Carmon et al., 2019), https://arxiv.org/abs/1905.13736, algorithm 1."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from robustbench_cli.core.losses import hard, kl
from robustbench_cli.defenses import DEFENSES
from robustbench_cli.defenses._step import Passes, Step
from robustbench_cli.defenses.trades import Trades


@DEFENSES.register("rst", aliases=("rst-adv",))
@dataclass(frozen=True, kw_only=True)
class RST(Trades):
    """TRADES over labelled and pseudo-labelled images.

    The loss is that of ``trades``; the adversarial images go through the model before the clean
    ones, as in the code.  Give it a second set of images: ``--extra-data SET --labeller RUN``, half
    of each batch as in the code.  With ``train.extra_labels=none`` and no labeller that half has
    the KL term only, as with the code's option ``remove_pseudo_labels``.  The paper says eps 8/255,
    the code 0.031.
    """

    unlabelled: ClassVar[bool] = True

    def loss(self, step: Step, logits: Passes) -> Tensor:
        return consistency_loss(step, logits, "adv", self.beta)


def consistency_loss(step: Step, logits: Passes, moved: str, beta: float) -> Tensor:
    """Return the loss (B): the criterion where there is a label, plus ``beta`` times KL(clean ||
    moved).

    The mean over the batch is the mean criterion over the labelled examples plus ``beta`` times the
    mean KL over all.  The moved images go through the model first.

    Args:
        moved: name of the forward pass on the moved images, "adv" or "noisy".
    """
    drift = kl(logits[moved], logits["clean"])
    known = hard(step.y) >= 0
    natural = step.criterion(logits["clean"], step.y.clamp(min=0)) * known
    labelled = step.total(known.sum()).clamp(min=1)
    return natural * step.size / labelled + beta * drift
