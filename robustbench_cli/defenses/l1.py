"""L1 weight penalty (Rice et al., 2020), https://arxiv.org/abs/2002.11569."""

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
    """Add ``amount`` times the L1 norm of the weights to the loss.

    Biases and BatchNorm are left out.

    It comes on top of the optimiser's ``weight_decay``, as in Rice et al.'s code.  The default 5e-6
    is the value that they selected.
    """

    amount: Annotated[Number, Field(ge=0)] = 5e-6
    """Factor of the sum of absolute weights."""

    def penalty(self, step: Step, logits: Passes) -> Tensor:
        sizes = [weight.abs().sum() for weight in weight_matrices(step.model)]
        return self.amount * torch.stack(sizes).sum()
