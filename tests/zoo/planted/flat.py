"""Models whose logits do not move with the image, or by too little to see."""

import runpy
from pathlib import Path

import torch
from torch import Tensor, nn

nets = runpy.run_path(str(Path(__file__).parents[1] / "nets.py"))
After, trained = nets["After"], nets["trained"]


def rounded_logits() -> nn.Module:
    """Round the logits to multiples of a quarter."""
    return After("relu-standard", lambda z: (4 * z).round() / 4)


class Steps(nn.Module):
    """A network whose features are rounded before the last layer."""

    def __init__(self) -> None:
        super().__init__()
        self.net = trained("mlp-standard")

    def forward(self, x: Tensor) -> Tensor:
        return self.net.head((2 * self.net.body(x)).floor() / 2)


def stepped_features() -> nn.Module:
    """Round the features down to halves: plateaus deep in the network."""
    return Steps()


def clamped() -> nn.Module:
    """Clamp the logits to a narrow band about the middle of the two largest."""

    def clamp(z: Tensor) -> Tensor:
        return (z - z.detach().topk(2, 1).values.mean(1, keepdim=True)).clamp(-0.05, 0.05)

    return After("elu-standard", clamp)


def tiny() -> nn.Module:
    """Multiply the logits by a millionth."""
    return After("gelu-standard", lambda z: z * 1e-6)


def terraces() -> nn.Module:
    """Replace each logit by a smooth staircase, flat but for its risers."""

    def stair(z: Tensor) -> Tensor:
        low = z.floor()
        return low + torch.sigmoid(400 * (z - low - 0.5))

    return After("leaky-standard", stair)


def a_hundredth() -> nn.Module:
    """Divide the logits of a robust network by a hundred, where the cross-entropy is a bad loss."""
    return After("elu-pgd-at", lambda z: z / 100)
