"""Single-step training: FGSM-AT (Goodfellow et al., 2015), https://arxiv.org/abs/1412.6572, and
Fast-AT (Wong, Rice & Kolter, 2020), https://arxiv.org/abs/2001.03994.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from robustbench_cli.core.gradient_ascent import Start, Steps, StepSize
from robustbench_cli.core.registry import Number
from robustbench_cli.defenses import DEFENSES
from robustbench_cli.defenses._step import Passes, Step
from robustbench_cli.defenses.pgd_at import PGDAT


@DEFENSES.register("fast-at")
@dataclass(frozen=True, kw_only=True)
class FastAT(PGDAT):
    """PGD-AT with one step of 1.25 eps from a uniform start (10/255 at 8/255), in train mode.

    The paper pairs it with a cyclic learning rate.  Watch for catastrophic overfitting: robust
    accuracy under PGD that falls to zero within an epoch.

    The authors' code clips the start to [0, 1] on CIFAR-10, and only after the step on MNIST
    (``start=unclipped``).  There that decides: after a clipped start a step of 1.25 eps puts every
    black pixel at 0 or at eps, and the net withstands such images alone.
    """

    steps: Steps = 1
    step: StepSize = 1.25


@DEFENSES.register("fgsm-at")
@dataclass(frozen=True, kw_only=True)
class FGSMAT(PGDAT):
    """A weighted sum of the criterion on clean images and on FGSM images.

    alpha criterion(f(x), y) + (1 - alpha) criterion(f(x + eps sign(grad)), y): one step of eps,
    without a random start.
    """

    steps: Steps = 1
    step: StepSize = 1.0
    start: Start = "clean"
    clean_weight: Annotated[Number, Field(ge=0, le=1)] = 0.5
    """Weight of the clean term, alpha; 0 trains on adversarial images only."""

    branches: ClassVar[int] = 2

    def loss(self, step: Step, logits: Passes) -> Tensor:
        adversarial = super().loss(step, logits)
        if self.clean_weight == 0:
            return adversarial
        clean = step.criterion(logits["clean"], step.y)
        return self.clean_weight * clean + (1 - self.clean_weight) * adversarial
