"""Triplet loss adversarial training (Mao et al., 2019), https://arxiv.org/abs/1909.00900."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor

from robustbench_cli.core.gradient_ascent import Steps
from robustbench_cli.core.model_modes import Mode
from robustbench_cli.core.registry import Number
from robustbench_cli.defenses import DEFENSES
from robustbench_cli.defenses._mining import bank_of, most_similar_other_class
from robustbench_cli.defenses._step import Passes, Step
from robustbench_cli.defenses.pgd_at import PGDAT
from robustbench_cli.models.taps import EMBEDDING


@DEFENSES.register("tla")
@dataclass(frozen=True, kw_only=True)
class TLA(PGDAT):
    """PGD-AT, plus triplet losses that pull adversarial features to their own class.

    criterion(f(x_adv), y) + weight * max(0, d(x_adv, pos) - d(x_adv, neg) + margin) + a norm term,
    with d = 1 - |cos| of the features before the last layer.  The positive is a clean image of the
    same class; the negative is the most similar of another class, mined after the attack.  The norm
    term is ``norm`` times the mean squared features of the triplet.

    The code may pick an image of the same class as the negative, here that never happens; where it
    smooths labels its attack climbs smoothed ones, here hard ones.  Defaults are those for the
    CIFAR-10 WRN; the authors advise a smaller weight and margin for other networks.  AutoAttack
    leaves 47.41 %, 2.6 points less than they report.
    """

    steps: Steps = 7
    attack_mode: Mode = "eval"
    weight: Annotated[Number, Field(ge=0)] = 2.0
    """Weight of each triplet loss, lambda_1; 0 is pgd-at with these steps and mode."""
    margin: Annotated[Number, Field(ge=0)] = 0.03
    """Margin between the distances to the positive and to the negative."""
    norm: Annotated[Number, Field(ge=0)] = 1e-3
    """Weight of the triplet's mean squared features, lambda_2."""
    positives: Literal["other", "both"] = "both"
    """The positive: another image of the class (other), or, in a second triplet, also the image
    itself with uniform noise of size eps (both)."""
    negative: Literal["semi-hard", "random"] = "semi-hard"
    """The negative: the most similar image of another class in a random draw (semi-hard), or any
    image of another class (random, TLA-RN)."""
    anchor: Literal["adversarial", "clean"] = "adversarial"
    """The anchor: the adversarial image, or the positive in exchange for it (clean, TLA-SA)."""
    bank: PositiveInt = 500
    """Number of training images that semi-hard negatives are searched in."""
    variant: Literal["code", "paper"] = "code"
    """lambda_1 multiplies lambda_2's term, too (code), or not (paper)."""

    branches: ClassVar[int] = 2
    taps: ClassVar[tuple[str, ...]] = (EMBEDDING,)
    one_label: ClassVar[bool] = True

    def crafted(self, step: Step) -> Mapping[str, Tensor]:
        adv = self.perturb(step)
        if self.weight == 0:
            return {"adv": adv}
        data, noise = bank_of(step), step.noise
        if self.negative == "random":
            rows = data.other(step.y, noise.fork("negative"))
        else:
            rows = most_similar_other_class(step, adv, self.bank)
        return {
            "adv": adv,
            "negative": data.images(rows).to(adv),
            "other": data.images(data.same(step.y, noise.fork("other"))).to(adv),
            "own": step.threat.random_start(step.x, noise.fork("own")),
        }

    def triplet(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """Return the weighted triplet loss and norm term (B).

        Args:
            anchor: features (B, F).
            positive: features (B, F) of the same class.
            negative: features (B, F) of another class.
        """
        near, far = (1 - F.cosine_similarity(anchor, e).abs() for e in (positive, negative))
        squares = sum(each.square().mean(1) for each in (anchor, positive, negative))
        norm = self.norm * (self.weight if self.variant == "code" else 1.0)
        return self.weight * (near - far + self.margin).clamp(min=0) + norm * squares

    def loss(self, step: Step, logits: Passes) -> Tensor:
        total = super().loss(step, logits)
        if self.weight == 0:
            return total
        adv, negative = logits.features("adv"), logits.features("negative")
        names = ("other", "own") if self.positives == "both" else ("other",)
        for positive in map(logits.features, names):
            pair = (adv, positive) if self.anchor == "adversarial" else (positive, adv)
            total = total + self.triplet(*pair, negative)
        return total
