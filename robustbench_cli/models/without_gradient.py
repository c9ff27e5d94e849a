"""A model whose code refuses images that want a gradient."""

import torch
from torch import Tensor, nn


class WithoutGradient(nn.Module):
    """Shows a model images that want no gradient, whatever is asked for.

    Code outside of torch, such as numpy's, cannot take those that do.

    Args:
        model: images (B, C, H, W) in [0, 1] to logits (B, K).
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, K) of images (B, C, H, W) in [0, 1], without a graph."""
        with torch.no_grad():
            logits: Tensor = self.model(x.detach())
        return logits
