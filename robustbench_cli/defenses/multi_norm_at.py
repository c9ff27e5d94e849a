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
from robustbench_cli.core.gradient_ascent import Iterate, Start, ascend, projected_step
from robustbench_cli.core.losses import cross_entropy
from robustbench_cli.core.registry import Number
from robustbench_cli.core.threat import Norm, Threat
from robustbench_cli.defenses import DEFENSES, Adversarial
from robustbench_cli.defenses._step import Passes, Step


@DEFENSES.register("multi-norm-at", aliases=("mnat",))
@dataclass(frozen=True, kw_only=True)
class MultiNormAT(Adversarial):
    """The criterion on images that were attacked in the Linf, L2 and L1 balls.

    Radii are the papers' for MNIST, scaled so that the one of the threat's own norm is its eps:
    digits at Linf 0.15 get L2 1 and L1 5.  Every norm takes 10 steps of eps/4 from the clean image,
    as pgd-at does; Maini et al. take 50 of eps/10 (CIFAR-10) and keep the best iterate, not the
    last.  ``min-max`` is a reconstruction: each image's weights over the norms are set to the point
    where the paper's repeated weight steps would converge for the losses as they are.
    """

    mode: Literal["msd", "max", "avg", "min-max"] = "msd"
    """msd: one ascent, each step in the norm that raises the loss the most.  The others make one
    ascent per norm and train on the worst of the ends (max), on their mean (avg), or on a mean
    weighted towards the worst (min-max)."""
    linf: Annotated[Number, Field(ge=0)] = 0.3
    """Radius in Linf, at the scale of the others; 0: leave the norm out."""
    l2: Annotated[Number, Field(ge=0)] = 2.0
    """Radius in L2."""
    l1: Annotated[Number, Field(ge=0)] = 10.0
    """Radius in L1."""
    gamma: Annotated[Number, Field(gt=0)] = 3.0
    """In min-max, how even the weights are: large is the mean, small the worst norm alone."""
    start: Start = "clean"

    def threats(self, own: Threat) -> list[Threat]:
        """Return the balls that images are attacked in, the one of the threat's own norm first.

        Raises:
            UserError: the threat's own norm is left out (its radius is 0).
        """
        radii: dict[Norm, float] = {"Linf": self.linf, "L2": self.l2, "L1": self.l1}
        if not radii[own.norm]:
            raise UserError(f"multi-norm-at: the threat is {own}; give {own.norm} a radius, too")
        scale = own.eps / radii.pop(own.norm)
        return [own, *(replace(own, norm=n, eps=scale * r) for n, r in radii.items() if r)]

    def crafted(self, step: Step) -> Mapping[str, Tensor]:
        threats = self.threats(step.threat)
        if self.mode == "msd":
            return {"adv": self._steepest_descent(step, threats)}
        task = step.model, cross_entropy, step.y, step.x
        ends = [ascend(*task, each, step.noise.fork(each.norm), self.climb) for each in threats]
        if self.mode == "max":
            return {"adv": worst(step, ends)}
        return {"adv": ends[0], **{t.norm: x for t, x in zip(threats[1:], ends[1:], strict=True)}}

    def _steepest_descent(self, step: Step, threats: list[Threat]) -> Tensor:
        """Multi steepest descent: a step in each norm, of which the worst is taken (B, C, H, W)."""

        def worst_step(here: Iterate) -> Tensor:
            x_adv, grad = here.x_adv, here.grad
            steps = [projected_step(x_adv, grad, step.x, each, self.step) for each in threats]
            return worst(step, steps)

        return ascend(
            step.model,
            cross_entropy,
            step.y,
            step.x,
            step.threat,
            step.noise,
            self.climb,
            worst_step,
        )

    def loss(self, step: Step, logits: Passes) -> Tensor:
        ends = [name for name in logits.inputs if name != "clean"]
        losses = torch.stack([step.criterion(logits[name], step.y) for name in ends], 1)
        if self.mode == "min-max":
            weights = settled(losses.detach(), self.gamma)
        else:
            weights = uniform_weights(losses)
        return (weights * losses).sum(1)


@torch.no_grad()
def worst(step: Step, candidates: list[Tensor]) -> Tensor:
    """Return of several images per example the one with the largest cross-entropy (B, C, H, W).

    Args:
        candidates: of each (B, C, H, W), one image per example.
    """
    losses = torch.stack([cross_entropy(step.model(x), step.y) for x in candidates])
    return torch.stack(candidates)[
        losses.argmax(0), torch.arange(len(step.x), device=step.x.device)
    ]
