"""Clean logit pairing and logit squeezing (Kannan et al., 2018), https://arxiv.org/abs/1803.06373.

No attack is made in training.  Both mostly hide gradients (Mosbach et al., 2018,
https://arxiv.org/abs/1810.12042): judge them by many restarts and by black-box attacks.
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
    """The criterion on noisy clean images, and a pull between the logits of random pairs.

    The pairs are the halves of a batch, whose order is random.  Follows Mosbach et al.'s code:
    squared difference averaged over the classes (the paper's formula sums), noise of 0.5 on
    MNIST clipped to [0, 1]; on Tiny ImageNet it takes ``sigma=16/255``.  With ``he`` the pairing
    is on cosines, as in ``alp``.
    """

    weight: Annotated[Number, Field(ge=0)] = 0.5
    """Weight of the pull, lambda."""
    sigma: Annotated[Number, Field(ge=0)] = 0.5
    """Standard deviation of the Gaussian noise."""

    alone: ClassVar[str] = "pairs the rows of a batch"

    def crafted(self, step: Step) -> Mapping[str, Tensor]:
        noise = step.noise.fork("noise").normal(step.x)
        return {"noisy": (step.x + self.sigma * noise).clamp(0, 1)}

    def loss(self, step: Step, logits: Passes) -> Tensor:
        noisy = wide(logits["noisy"])
        pull = self.pull(noisy / step.model.logit_scale)
        return step.criterion(noisy, step.y) + self.weight * pull

    def pull(self, scores: Tensor) -> Tensor:
        """What is added for each example (B), given the logits (B, C) of its batch."""
        # Half a batch further on: of an even batch each pair comes twice, of an odd one nearly.
        return (scores - scores.roll(len(scores) // 2, 0)).square().mean(1)


@DEFENSES.register("lsq")
@dataclass(frozen=True, kw_only=True)
class LogitSqueezing(CLP):
    """The criterion on noisy clean images, and a pull of their logits towards zero.

    The penalty is the length of the logit vector, as in Mosbach et al.'s code.
    """

    alone: ClassVar[str] = ""

    def pull(self, scores: Tensor) -> Tensor:
        lengths: Tensor = torch.linalg.vector_norm(scores, dim=1)
        return lengths
