"""Virtual adversarial training (Miyato et al., 2018), https://arxiv.org/abs/1704.03976, eq. 5-8."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from robustbench_cli.core.gradient_ascent import Iterate, Steps, fixed_logits, iterate
from robustbench_cli.core.losses import kl
from robustbench_cli.core.model_modes import frozen_batchnorm, full_float32
from robustbench_cli.core.registry import Number
from robustbench_cli.defenses import DEFENSES, Objective
from robustbench_cli.defenses._step import Passes, Step
from robustbench_cli.models import Classifier


@DEFENSES.register("vat")
@dataclass(frozen=True, kw_only=True)
class VAT(Objective):
    """The criterion, plus a KL to the predictions at images moved where predictions change fastest.

    criterion(f(x), y) + alpha KL(p(x) || p(x + r)), with p(x) held constant and r of L2 norm
    ``radius`` in the direction of greatest change, found by power iteration from Gaussian noise.
    No labels enter the KL: with ``--extra-data`` it is over those images, whose labels are not used
    unless they are all there is (``train.extra_share=1``).

    As in the code BatchNorm's running statistics follow the labelled pass alone, and moved images
    may leave [0, 1].  The code's ``xi`` of 1e-6 is lost in float32's rounding: on digits the
    direction then has a cosine of 0.25 with the true one, and of 0.998 with the default here.
    """

    alpha: Annotated[Number, Field(ge=0)] = 1.0
    """Weight of the KL."""
    radius: Annotated[Number, Field(gt=0)] | None = None
    """L2 norm of r; None: that of the smallest L2 ball that contains the threat's ball."""
    xi: Annotated[Number, Field(gt=0)] = 1e-2
    """L2 norm of the finite difference in the power iteration."""
    steps: Steps = 1
    """Power iterations."""

    attack_mode = "frozen"
    branches: ClassVar[int] = 2
    unlabelled: ClassVar[bool] = True

    def crafted(self, step: Step) -> Mapping[str, Tensor]:
        x, noise, labelled = step.x, step.noise.fork("direction"), (step.x, step.y)
        if step.extra is not None:
            known, rows = _parted(step.extra)
            x, noise, labelled = x[rows], noise.only(rows), (x[known], step.y[known])
        direction = unit_l2(noise.normal(x))
        fixed = fixed_logits(step.model, x)
        with full_float32(step.model):  # a finite difference of ``xi`` is lost in bfloat16
            direction = self._power_iteration(step.model, x, fixed, direction)
        length = self.radius or step.threat.radius_in("L2", x[0].numel())
        moved = x + length * direction
        return {"labelled": labelled[0], "labels": labelled[1], "moved": moved, "fixed": fixed}

    def _power_iteration(
        self, model: Classifier, x: Tensor, fixed: Tensor, direction: Tensor
    ) -> Tensor:
        """Return the unit directions (B, C, H, W) after ``steps`` power iterations.

        Args:
            fixed: logits (B, classes) at ``x``.
            direction: unit directions (B, C, H, W) to begin with.
        """

        def next_difference(here: Iterate) -> Tensor:
            nonlocal direction
            direction = unit_l2(here.grad)
            return x + self.xi * direction

        iterate(model, kl, fixed, x + self.xi * direction, self.steps, next_difference)
        return direction

    def loss(self, step: Step, logits: Passes) -> Tensor:
        with frozen_batchnorm(step.model):
            drift = self.alpha * kl(logits["moved"], logits.inputs["fixed"])
        if step.extra is None:
            return step.criterion(logits["clean"], step.y) + drift
        known = step.criterion(logits["labelled"], logits.inputs["labels"])
        # The caller averages over all examples; the factors make it the mean of either part.
        extra = step.total(step.extra.sum())
        return torch.cat([known / (step.size - extra), drift / extra]) * step.size


def _parted(extra: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows (int64) where a mask (B) is False, and those where it is True.

    One wait for the device, which a mask as an index would cost at each use.
    """
    order = extra.to(torch.uint8).argsort(stable=True)
    count = int(extra.sum())
    return order[: len(order) - count], order[len(order) - count :]


def unit_l2(direction: Tensor) -> Tensor:
    """Return each example of (B, C, H, W) scaled to an L2 norm of one."""
    # Divide by the largest entry first: squares of a small gradient underflow in float32.
    flat = direction.flatten(1)
    flat = flat / flat.abs().amax(1, keepdim=True).clamp_min(1e-30)
    return F.normalize(flat).view_as(direction)
