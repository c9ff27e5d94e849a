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
from robustbench_cli.defenses._mining import bank_of, most_alike
from robustbench_cli.defenses._step import Passes, Step
from robustbench_cli.defenses.pgd_at import PGDAT
from robustbench_cli.models.taps import EMBEDDING


@DEFENSES.register("tla")
@dataclass(frozen=True, kw_only=True)
class TLA(PGDAT):
    """PGD training, and features of an adversarial image that are nearer to those of its own class
    than to the most similar ones of another.

    Distances are 1 - |cos|.  The code may pick an image of the own class as the other's, here
    never; where it smooths labels its attack climbs smoothed ones, ours hard ones.  Defaults are
    those for the CIFAR-10 WRN; the authors advise a smaller weight and margin for other nets.
    AutoAttack leaves 47.41 %, 2.6 points less than they report.
    """

    steps: Steps = 7
    attack_mode: Mode = "eval"
    weight: Annotated[Number, Field(ge=0)] = 2.0
    """Weight of each triplet, lambda_1; 0 is pgd-at with these steps in this mode."""
    margin: Annotated[Number, Field(ge=0)] = 0.03
    """By how much nearer the own class must be."""
    norm: Annotated[Number, Field(ge=0)] = 1e-3
    """Weight of the triplet's mean squared features, lambda_2."""
    positives: Literal["other", "both"] = "both"
    """Who is of the own class: another image, or, in two triplets, also the own one with noise."""
    negative: Literal["semi-hard", "random"] = "semi-hard"
    """The most similar image of another class in a draw from the data, or any (TLA-RN)."""
    anchor: Literal["adversarial", "clean"] = "adversarial"
    """What the other two are compared with; clean swaps it with the own class's (TLA-SA)."""
    bank: PositiveInt = 500
    """How many training images the most similar one is looked for in."""
    variant: Literal["code", "paper"] = "code"
    """Whether lambda_1 multiplies lambda_2's term, too (code), or not (paper)."""

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
            rows = most_alike(step, adv, self.bank)
        return {
            "adv": adv,
            "negative": data.images(rows).to(adv),
            "other": data.images(data.same(step.y, noise.fork("other"))).to(adv),
            "own": step.threat.random_start(step.x, noise.fork("own")),
        }

    def triplet(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """The weighted hinge and norm (B) of features (B, F)."""
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
