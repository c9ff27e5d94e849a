"""Localized adversarial training (Rothberg et al., 2019), https://arxiv.org/abs/1909.04779."""

from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import Field
from torch import Tensor

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.gradient_ascent import ascend
from robustbench_cli.core.losses import cross_entropy
from robustbench_cli.core.registry import Number
from robustbench_cli.defenses import DEFENSES, Adversarial
from robustbench_cli.defenses._step import Passes, Step
from robustbench_cli.masks import MaskContext, bind_to_images, canonical


@DEFENSES.register("localized")
@dataclass(frozen=True, kw_only=True)
class Localized(Adversarial):
    """Train on a weighted sum of clean images and images whose background alone was attacked.

    w criterion(f(x), y) + (1 - w) criterion(f(x_adv), y), with x_adv from PGD on cross-entropy that
    changes only the pixels of ``mask``.  A study of the threat model and no robustness method: an
    attack on the whole image leaves almost nothing of it.

    There is no code, and the full text could not be read: equal weights, the PGD and the mask are a
    reconstruction.  The default mask is for bright digits on black; name another for other data.
    The training history and evaluations attack the whole image unless ``--mask`` is given there.
    """

    mask: str = "threshold:above=0.1"
    """Pixels that the inner attack may change, as --mask takes it (advbench list masks)."""
    clean_weight: Annotated[Number, Field(ge=0, le=1)] = 0.5
    """Weight of the clean term, w."""

    branches = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            object.__setattr__(self, "mask", canonical(self.mask))
        except UserError as error:
            raise ValueError(str(error)) from None
        if not self.mask:
            raise ValueError("it trains under a mask; without one write fgsm-at or pgd-at")

    def perturb(self, step: Step) -> Tensor:
        context = MaskContext(model=step.model, x=step.x, y=step.y)
        threat = bind_to_images(replace(step.threat, mask=self.mask), context)
        return ascend(step.model, cross_entropy, step.y, step.x, threat, step.noise, self.climb)

    def loss(self, step: Step, logits: Passes) -> Tensor:
        clean = step.criterion(logits["clean"], step.y)
        adversarial = step.criterion(logits["adv"], step.y)
        return self.clean_weight * clean + (1 - self.clean_weight) * adversarial
