"""Adversarial training of smoothed classifiers, SmoothAdv (Salman et al., 2019),
https://arxiv.org/abs/1906.04584."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from robustbench_cli.core.decoupled_step import (
    cosine_decay,
    decoupled_step,
    next_radius,
    on_grey_levels,
)
from robustbench_cli.core.gradient_ascent import Iterate, Model, Start, Steps, StepSize, ascend
from robustbench_cli.core.losses import cross_entropy, hits, wide
from robustbench_cli.core.registry import Number
from robustbench_cli.core.threat import over
from robustbench_cli.defenses import DEFENSES, Adversarial
from robustbench_cli.defenses._step import Passes, Step


@DEFENSES.register("smooth-adv")
@dataclass(frozen=True, kw_only=True)
class SmoothAdv(Adversarial):
    """The criterion on noisy copies of images that PGD made to fool the smoothed classifier.

    The inner attack climbs -log of the class's mean probability over ``draws`` noisy copies, whose
    noise stays the same (SmoothAdv-PGD), and the net then learns from the same copies.  Certify it
    with ``smoothing``.  The paper attacks in L2 with eps 64/256 to 512/256, which grows over the
    first 10 of 150 epochs: ``train.eps_warmup``, here batch by batch, in the code by epoch.  As in
    the code the first step begins at the clean image, and ``steps`` steps of 2 / ``steps`` eps go
    twice as far as the radius: for 2 steps write ``steps=2,step=1``.
    """

    steps: Steps = 10
    step: StepSize = 0.2
    start: Start = "clean"
    sigma: Annotated[Number, Field(gt=0)] = 0.25
    """Standard deviation of the noise; certify with the same one."""
    draws: Annotated[int, Field(ge=1)] = 2
    """Noisy copies of each image; the code's batches hold so many times fewer images."""
    all_draws: bool = True
    """Learn from all copies, not from the first alone."""

    def crafted(self, step: Step) -> Mapping[str, Tensor]:
        every = [step.noise.fork("noise").fork(i).normal(step.x) for i in range(self.draws)]
        noise = self.sigma * torch.cat(every)
        adv = self.found(step, SmoothedNet(step.model, noise))
        used = noise if self.all_draws else noise[: len(adv)]
        return {"adv": adv, "noisy": adv.repeat(len(used) // len(adv), 1, 1, 1) + used}

    def found(self, step: Step, smoothed: Model) -> Tensor:
        """Return images (B, C, H, W) that fool the smoothed classifier, detached.

        Args:
            step: the training step.
            smoothed: images (B, C, H, W) to logarithms of mean probabilities (B, K).
        """
        problem = cross_entropy, step.y, step.x, step.threat, step.noise
        return ascend(smoothed, *problem, self.climb)

    def loss(self, step: Step, logits: Passes) -> Tensor:
        copies = len(logits.inputs["noisy"]) // len(step.y)
        y = torch.cat([step.y] * copies)
        return step.criterion(logits["noisy"], y).view(copies, -1).mean(0)


@DEFENSES.register("smooth-adv-ddn")
@dataclass(frozen=True, kw_only=True)
class SmoothAdvDDN(SmoothAdv):
    """SmoothAdv with DDN: the nearest image that fools the smoothed classifier, at most at eps.

    It follows the direction of the gradient on a sphere that begins at eps, shrinks where the image
    fools the classifier (by the mean probability; in the code, by most copies), and grows
    elsewhere.  Images that are misclassified already stay as they are, and so do those that no
    iterate fools.  The sphere is one in L2; in another norm the image found is brought to the ball.
    """

    gamma: Annotated[Number, Field(gt=0, lt=1)] = 0.05
    """Share by which the sphere shrinks or grows at each step."""
    levels: Annotated[int, Field(ge=0)] = 256
    """Number of grey levels that iterates are rounded to; 0: no rounding."""

    def found(self, step: Step, smoothed: Model) -> Tensor:
        x, far = step.x, step.x.new_full((len(step.x),), float("inf"))
        radius, best, nearest = far.clamp(max=step.threat.radius_in("L2", x[0].numel())), x, far

        def stepped(here: Iterate) -> Tensor:
            nonlocal radius, best, nearest
            wrong, away = hits(here.logits, step.y) < 0.5, (here.x_adv - x).flatten(1).norm(dim=1)
            better = wrong & (away < nearest)
            best = torch.where(over(better, x), here.x_adv, best)
            nearest = torch.where(better, away, nearest)
            radius = next_radius(radius, wrong, x, self.gamma)
            rate = cosine_decay(1, 0.01, far.new_full(far.shape, here.step_index + 1), self.steps)
            random = partial(step.noise.fork("lost").fork(here.step_index).normal, x)
            moved = decoupled_step(here.x_adv, x, here.grad, random, rate, radius)
            return on_grey_levels(moved, self.levels).clamp(0, 1)

        problem = cross_entropy, step.y, x, step.threat, step.noise
        ascend(smoothed, *problem, self.climb, stepped)
        return step.threat.project(best, x)


class SmoothedNet(nn.Module):
    """The logarithm of a network's mean probabilities (B, K) over noisy copies of images.

    Args:
        net: images (B, C, H, W) to logits (B, K).
        noise: added to the images (M B, C, H, W), all B of them for each of M copies.
    """

    def __init__(self, net: nn.Module, noise: Tensor) -> None:
        super().__init__()
        self.net, self.noise = net, noise

    def forward(self, x: Tensor) -> Tensor:
        copies = len(self.noise) // len(x)
        logits = self.net(x.repeat(copies, 1, 1, 1) + self.noise)
        shares = wide(logits).softmax(1).view(copies, len(x), -1).mean(0)
        return shares.clamp_min(1e-20).log()
