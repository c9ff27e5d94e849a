"""Adversarial training in several norms (Tramer and Boneh, 2019), https://arxiv.org/abs/1904.13000.

msd: Maini et al., 2020, https://arxiv.org/abs/1909.04068; weights over norms: Wang et al., 2021,
https://arxiv.org/abs/1906.03563.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from robustbench_cli.core.domain_weights import settled, uniform_weights
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.gradient_ascent import Start, ascend, gradient
from robustbench_cli.core.losses import cross_entropy
from robustbench_cli.core.registry import Number
from robustbench_cli.core.threat import Norm, Threat
from robustbench_cli.defenses import DEFENSES, Adversarial
from robustbench_cli.defenses._step import Passes, Step


@DEFENSES.register("multi-norm-at", aliases=("mnat",))
@dataclass(frozen=True, kw_only=True)
class MultiNormAT(Adversarial):
    """The criterion on images that were moved in the Linf, L2 and L1 balls.

    Radii are the papers' for MNIST, scaled so that the one of the threat's own norm is its eps:
    digits at Linf 0.15 get L2 1 and L1 5.  Every norm takes 10 steps of eps/4 from the clean image,
    as pgd-at does; Maini et al. take 50 of eps/10 (CIFAR-10) and keep the best iterate, not the
    last.  ``min-max`` is a reconstruction: weights are, image by image, at once where the paper's
    steps of them would end.
    """

    mode: Literal["msd", "max", "avg", "min-max"] = "msd"
    """One walk in which each step is of the norm that raises the loss the most; a walk per norm,
    and the worst end of them; the mean over their ends; or one that leans to the worst."""
    linf: Annotated[Number, Field(ge=0)] = 0.3
    """Radius in Linf, at the scale of the others; 0: leave the norm out."""
    l2: Annotated[Number, Field(ge=0)] = 2.0
    """Radius in L2."""
    l1: Annotated[Number, Field(ge=0)] = 10.0
    """Radius in L1."""
    gamma: Annotated[Number, Field(gt=0)] = 3.0
    """Of min-max: large is the mean, small the worst norm alone."""
    start: Start = "clean"

    def threats(self, own: Threat) -> list[Threat]:
        """The balls, the threat's own first; raise ``UserError`` if that is left out."""
        radii: dict[Norm, float] = {"Linf": self.linf, "L2": self.l2, "L1": self.l1}
        if not radii[own.norm]:
            raise UserError(f"multi-norm-at: the threat is {own}; give {own.norm} a radius, too")
        scale = own.eps / radii.pop(own.norm)
        return [own, *(replace(own, norm=n, eps=scale * r) for n, r in radii.items() if r)]

    def crafted(self, step: Step) -> Mapping[str, Tensor]:
        threats = self.threats(step.threat)
        if self.mode == "msd":
            return {"adv": self._steepest(step, threats)}
        walk = step.model, cross_entropy, step.y, step.x
        ends = [ascend(*walk, each, step.noise.fork(each.norm), self.climb) for each in threats]
        if self.mode == "max":
            return {"adv": worst(step, ends)}
        return {"adv": ends[0], **{t.norm: x for t, x in zip(threats[1:], ends[1:], strict=True)}}

    def _steepest(self, step: Step, threats: list[Threat]) -> Tensor:
        x_adv = self.climb.begin(step.x, step.threat, step.noise)
        for _ in range(self.steps):
            _, grad = gradient(step.model, cross_entropy, step.y, x_adv)
            moved = [x_adv + self.step * each.eps * each.steepest(grad) for each in threats]
            tried = [t.project(x, step.x) for t, x in zip(threats, moved, strict=True)]
            x_adv = worst(step, tried)
        return x_adv

    def loss(self, step: Step, logits: Passes) -> Tensor:
        ends = [name for name in logits.inputs if name != "clean"]
        losses = torch.stack([step.criterion(logits[name], step.y) for name in ends], 1)
        leaning = self.mode == "min-max"
        weights = settled(losses.detach(), self.gamma) if leaning else uniform_weights(losses)
        return (weights * losses).sum(1)


@torch.no_grad()
def worst(step: Step, tried: list[Tensor]) -> Tensor:
    """Of several images per example, the one with the largest cross-entropy."""
    losses = torch.stack([cross_entropy(step.model(x), step.y) for x in tried])
    return torch.stack(tried)[losses.argmax(0), torch.arange(len(step.x))]
