"""Clean logit pairing and logit squeezing (Kannan et al., 2018), https://arxiv.org/abs/1803.06373.

Neither makes adversarial images in training.  Both mostly mask gradients (Mosbach et al., 2018,
https://arxiv.org/abs/1810.12042): evaluate them with many restarts and with black-box attacks.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from robustbench_cli.core.losses import wide
from robustbench_cli.core.registry import Number
from robustbench_cli.defenses import DEFENSES, Objective
from robustbench_cli.defenses._step import Passes, Step


@DEFENSES.register("clp")
@dataclass(frozen=True, kw_only=True)
class CLP(Objective):
    """Train on noisy clean images, with a penalty on the logit distance of random pairs of them.

    criterion(f(x + noise), y) + weight * mean_c (f_i - f_j)^2, where j is the example half a batch
    further on; batches are in random order.  Follows Mosbach et al.'s code: the squared difference
    is averaged over the classes (the paper's formula sums), and Gaussian noise of 0.5 on MNIST is
    clipped to [0, 1]; on Tiny ImageNet the code takes ``sigma=16/255``.  With ``he`` the paired
    logits are cosines, as in ``alp``.
    """

    weight: Annotated[Number, Field(ge=0)] = 0.5
    """Weight of the logit penalty, lambda."""
    sigma: Annotated[Number, Field(ge=0)] = 0.5
    """Standard deviation of the Gaussian noise, in pixel values of [0, 1]."""

    alone: ClassVar[str] = "pairs the rows of a batch"

    def crafted(self, step: Step) -> Mapping[str, Tensor]:
        noise = step.noise.fork("noise").normal(step.x)
        return {"noisy": (step.x + self.sigma * noise).clamp(0, 1)}

    def loss(self, step: Step, logits: Passes) -> Tensor:
        noisy = wide(logits["noisy"])
        penalty = self.logit_penalty(noisy / step.model.logit_scale)
        return step.criterion(noisy, step.y) + self.weight * penalty

    def logit_penalty(self, scores: Tensor) -> Tensor:
        """Return the logit penalty (B) of a batch of logits (B, C)."""
        # Pairs are half a batch apart; in an even batch every pair is counted twice.
        return (scores - scores.roll(len(scores) // 2, 0)).square().mean(1)


@DEFENSES.register("lsq")
@dataclass(frozen=True, kw_only=True)
class LogitSqueezing(CLP):
    """Train on noisy clean images, with a penalty on the L2 norm of their logits.

    criterion(f(x + noise), y) + weight * ||f(x + noise)||, with the norm not squared, as in Mosbach
    et al.'s code.
    """

    alone: ClassVar[str] = ""

    def logit_penalty(self, scores: Tensor) -> Tensor:
        lengths: Tensor = torch.linalg.vector_norm(scores, dim=1)
        return lengths
