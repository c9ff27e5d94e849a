"""Adam (Kingma & Ba, 2015), https://arxiv.org/abs/1412.6980."""

from dataclasses import dataclass

import torch

from robustbench_cli.optim import OPTIMIZERS, Fraction, OptimizerConfig


@OPTIMIZERS.register("adam")
@dataclass(frozen=True, kw_only=True)
class Adam(OptimizerConfig):
    """Steps scaled by running means of the gradients and of their squares, bias-corrected."""

    beta1: Fraction = 0.9
    """Decay of the running mean of the gradients."""
    beta2: Fraction = 0.999
    """Decay of the running mean of the squared gradients."""

    def over(self, groups: list[dict[str, object]], lr: float) -> torch.optim.Optimizer:
        return torch.optim.Adam(groups, lr=lr, betas=(self.beta1, self.beta2), fused=True)
