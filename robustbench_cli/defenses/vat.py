"""Virtual adversarial training (Miyato et al., 2018), https://arxiv.org/abs/1704.03976, eq. 5-8."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from robustbench_cli.core.gradient_ascent import Steps, gradient
from robustbench_cli.core.losses import kl
from robustbench_cli.core.model_modes import frozen_batchnorm
from robustbench_cli.core.registry import Number
from robustbench_cli.defenses import DEFENSES, Objective
from robustbench_cli.defenses._step import Passes, Step
from robustbench_cli.models import Classifier


@DEFENSES.register("vat")
@dataclass(frozen=True, kw_only=True)
class VAT(Objective):
    """The criterion, plus ``alpha`` times the KL from the predictions, held fixed, to those at
    images moved in the direction in which they change fastest.

    With ``--extra-data`` the KL is over those images, whose labels are not looked at unless they
    are all there is (``train.extra_share=1``).  As in the code BatchNorm remembers the labelled
    pass alone, and moved images may leave [0, 1].  The code's ``xi`` of 1e-6 is lost in float32's
    rounding: on digits the direction then has a cosine of 0.25 with the true one, and of 0.998
    here.
    """

    alpha: Annotated[Number, Field(ge=0)] = 1.0
    """Weight of the KL."""
    radius: Annotated[Number, Field(gt=0)] | None = None
    """L2 length of the move; None: of the smallest L2 ball that holds the threat's."""
    xi: Annotated[Number, Field(gt=0)] = 1e-2
    """L2 length of the finite difference in the power iteration."""
    steps: Steps = 1
    """Power iterations."""

    attack_mode = "frozen"
    branches: ClassVar[int] = 2
    unlabelled: ClassVar[bool] = True

    def crafted(self, step: Step) -> Mapping[str, Tensor]:
        x, noise, labelled = step.x, step.noise.fork("direction"), step.x
        if step.extra is not None:
            x, noise, labelled = x[step.extra], noise.only(step.extra), x[~step.extra]
        direction = unit(noise.normal(x))
        with exactly(step.model):
            with torch.no_grad():
                fixed = step.model(x)
            for _ in range(self.steps):
                _, grad = gradient(step.model, kl, fixed, x + self.xi * direction)
                direction = unit(grad)
        length = self.radius or step.threat.radius_in("L2", x[0].numel())
        return {"labelled": labelled, "moved": x + length * direction, "fixed": fixed}

    def loss(self, step: Step, logits: Passes) -> Tensor:
        with frozen_batchnorm(step.model):
            drift = self.alpha * kl(logits["moved"], logits.inputs["fixed"])
        if step.extra is None:
            return step.criterion(logits["clean"], step.y) + drift
        known = step.criterion(logits["labelled"], step.y[~step.extra])
        # Two means, each over its own images; what comes of this is averaged over all.
        extra = step.total(step.extra.sum())
        return torch.cat([known / (step.size - extra), drift / extra]) * step.size


def unit(direction: Tensor) -> Tensor:
    """Each example scaled to an L2 length of one."""
    # By the largest entry first: the squares of a small gradient vanish in float32.
    flat = direction.flatten(1)
    flat = flat / flat.abs().amax(1, keepdim=True).clamp_min(1e-30)
    return F.normalize(flat).view_as(direction)


@contextmanager
def exactly(model: Classifier) -> Iterator[None]:
    """Full float32: a difference of ``xi`` is lost in bfloat16 and in TF32."""
    was = model.low_precision, torch.backends.cudnn.allow_tf32
    model.low_precision = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        model.low_precision, torch.backends.cudnn.allow_tf32 = was
