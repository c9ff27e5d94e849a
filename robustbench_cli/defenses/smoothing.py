"""Gaussian augmentation for randomised smoothing (Cohen, Rosenfeld & Kolter, 2019),
https://arxiv.org/abs/1902.02918, section 3.3."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor

from robustbench_cli.core.registry import Number
from robustbench_cli.defenses import DEFENSES, Objective
from robustbench_cli.defenses._step import Passes, Step


@DEFENSES.register("smoothing")
@dataclass(frozen=True, kw_only=True)
class GaussianAugmentation(Objective):
    """The criterion on images with Gaussian noise; certify it with ``smoothing``.

    The noise is added to images in [0, 1], after other augmentation and before the normalisation,
    and is not clipped, as in certification.  The radius of the threat is not used.
    """

    sigma: Annotated[Number, Field(gt=0)] = 0.25
    """Standard deviation of the noise; certify with the same one."""

    def crafted(self, step: Step) -> Mapping[str, Tensor]:
        return {"noisy": step.x + self.sigma * step.noise.fork("noise").normal(step.x)}

    def loss(self, step: Step, logits: Passes) -> Tensor:
        return step.criterion(logits["noisy"], step.y)
