"""Stochastic gradient descent, as in torch.optim."""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field

from robustbench_cli.core.registry import Number
from robustbench_cli.optim import OPTIMIZERS, OptimizerConfig


@OPTIMIZERS.register("sgd")
@dataclass(frozen=True, kw_only=True)
class SGD(OptimizerConfig):
    """Stochastic gradient descent with momentum."""

    weight_decay: Annotated[Number, Field(ge=0)] = 5e-4
    momentum: Annotated[Number, Field(ge=0, lt=1)] = 0.9
    """Momentum coefficient: the share of the previous step that the next one keeps."""
    nesterov: bool = False
    """Use Nesterov's accelerated gradient (Nesterov, 1983)."""

    def over(self, groups: list[dict[str, object]], lr: float) -> torch.optim.Optimizer:
        return torch.optim.SGD(
            groups, lr=lr, momentum=self.momentum, nesterov=self.nesterov, fused=True
        )
