"""Fast gradient sign method (Goodfellow et al., 2015), https://arxiv.org/abs/1412.6572.

Its version with a random start is that of Wong et al. (2020), https://arxiv.org/abs/2001.03994.
"""

from dataclasses import dataclass
from typing import ClassVar

from robustbench_cli.attacks import ATTACKS
from robustbench_cli.attacks.pgd import PGD
from robustbench_cli.core.gradient_ascent import Start, Steps, StepSize


@ATTACKS.register("fgsm")
@dataclass(frozen=True, kw_only=True)
class FGSM(PGD):
    """A single step of size eps from the clean image (section 4 of the paper)."""

    nested_steps: ClassVar[bool] = True

    steps: Steps = 1
    step: StepSize = 1.0
    start: Start = "clean"


@ATTACKS.register("fgsm-rs")
@dataclass(frozen=True, kw_only=True)
class RandomFGSM(PGD):
    """A single step of 1.25 eps from a uniform start, as used for training by Fast-AT.

    The start is clipped to [0, 1] before the gradient is taken.  The "FGSM" of Feature Scattering
    is ``fgsm-rs:step=1``.
    """

    nested_steps: ClassVar[bool] = True

    steps: Steps = 1
    step: StepSize = 1.25
