"""Sparse weights in adversarial training (Rice et al., 2020), https://arxiv.org/abs/2002.11569."""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from robustbench_cli.core.registry import Number
from robustbench_cli.defenses import DEFENSES, Modifier
from robustbench_cli.defenses._step import Passes, Step
from robustbench_cli.optim import weight_matrices


@DEFENSES.register("l1")
@dataclass(frozen=True, kw_only=True)
class L1(Modifier):
    """Add the sum of the weights' absolute values to the loss; biases and BatchNorm are left out.

    On top of the optimiser's ``weight_decay``, as in Rice et al.'s code.
    """

    amount: Annotated[Number, Field(ge=0)] = 5e-6
    """What the sum is multiplied by."""

    def penalty(self, step: Step, logits: Passes) -> Tensor:
        sizes = [weight.abs().sum() for weight in weight_matrices(step.model)]
        return self.amount * torch.stack(sizes).sum()
