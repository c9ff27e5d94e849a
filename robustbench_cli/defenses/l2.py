"""Small weights in adversarial training (Rice et al., 2020), https://arxiv.org/abs/2002.11569."""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from robustbench_cli.core.registry import Number
from robustbench_cli.defenses import DEFENSES, Modifier
from robustbench_cli.defenses._step import Passes, Step
from robustbench_cli.optim import weight_matrices


@DEFENSES.register("l2")
@dataclass(frozen=True, kw_only=True)
class L2(Modifier):
    """Add half the sum of the weights' squares to the loss; biases and BatchNorm are left out.

    Alone it is the optimiser's ``weight_decay`` with ``decay_norm=false``, and so Rice et al. run
    it: write ``--set optimizer.weight_decay=0``, else it comes on top.  In their code the
    parameters that do not decay keep the full learning rate for the whole run; here all follow
    the schedule.
    """

    amount: Annotated[Number, Field(ge=0)] = 5e-4
    """What half the sum is multiplied by: its gradient is ``amount`` times the weight."""

    def penalty(self, step: Step, logits: Passes) -> Tensor:
        squares = [weight.square().sum() for weight in weight_matrices(step.model)]
        return self.amount / 2 * torch.stack(squares).sum()
