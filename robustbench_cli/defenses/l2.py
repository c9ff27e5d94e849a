"""L2 weight penalty (Rice et al., 2020), https://arxiv.org/abs/2002.11569."""

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
    """Add ``amount`` times half the squared L2 norm of the weights to the loss.

    Biases and BatchNorm are left out.

    Without other decay it equals the optimiser's ``weight_decay`` with ``decay_norm=false``, which
    is how Rice et al. run it: write ``--set optimizer.weight_decay=0``, else the two add up.  In
    their code the parameters that do not decay keep the initial learning rate for the whole run;
    here all parameters follow the schedule.
    """

    amount: Annotated[Number, Field(ge=0)] = 5e-4
    """Factor of half the sum of squares: the gradient is ``amount`` times the weight."""

    def penalty(self, step: Step, logits: Passes) -> Tensor:
        squares = [weight.square().sum() for weight in weight_matrices(step.model)]
        return self.amount / 2 * torch.stack(squares).sum()
