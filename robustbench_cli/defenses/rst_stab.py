"""Robust self-training, stability variant (Carmon et al., 2019), https://arxiv.org/abs/1905.13736,
sec. 4.

Stability training against noise is due to Zheng et al. (2016), https://arxiv.org/abs/1604.04326.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from robustbench_cli.core.registry import Number
from robustbench_cli.defenses import DEFENSES, Objective
from robustbench_cli.defenses._step import Passes, Step
from robustbench_cli.defenses.rst import consistency_loss


@DEFENSES.register("rst-stab")
@dataclass(frozen=True, kw_only=True)
class RSTStab(Objective):
    """RST with Gaussian noise in place of the attack, for a smoothed classifier certified in L2.

    criterion(f(x), y) + beta KL(f(x) || f(x + noise)); the criterion counts only where there is a
    label. As in the code the noisy images are clipped to [0, 1] in training, while certification
    adds noise without clipping.  The radius of the threat is not used.  The paper trains four times
    as long (800 epochs).
    """

    beta: Annotated[Number, Field(ge=0)] = 6.0
    """Weight of the KL from clean to noisy predictions."""
    sigma: Annotated[Number, Field(ge=0)] = 0.25
    """Standard deviation of the noise; certify with the same one."""

    branches: ClassVar[int] = 2
    unlabelled: ClassVar[bool] = True

    def crafted(self, step: Step) -> Mapping[str, Tensor]:
        noise = step.noise.fork("noise").normal(step.x)
        return {"noisy": (step.x + self.sigma * noise).clamp(0, 1)}

    def loss(self, step: Step, logits: Passes) -> Tensor:
        return consistency_loss(step, logits, "noisy", self.beta)
