"""Models so sure of themselves that the cross-entropy is zero in float32."""

import runpy
from pathlib import Path

import torch
from torch import Tensor, nn

nets = runpy.run_path(str(Path(__file__).parents[1] / "nets.py"))
After = nets["After"]


def times_ten_thousand() -> nn.Module:
    """Multiply the logits by 10,000."""
    return After("relu-standard", lambda z: z * 1e4)


def sharpened() -> nn.Module:
    """Return log-probabilities at a temperature of a thousandth."""
    return After("elu-standard", lambda z: (z / 1e-3).log_softmax(1))


def winner_bonus() -> nn.Module:
    """Add a bonus to the class that leads."""
    return After(
        "gelu-standard", lambda z: z + 200 * (z == z.detach().amax(1, keepdim=True)).float()
    )


def tanh_logits() -> nn.Module:
    """Send the logits through a steep tanh about the middle of the two largest."""

    def squash(z: Tensor) -> Tensor:
        middle = z.detach().topk(2, 1).values.mean(1, keepdim=True)
        return 60 * torch.tanh(30 * (z - middle))

    return After("leaky-standard", squash)


def mnist_times_ten_thousand() -> nn.Module:
    """Multiply the logits of a network for MNIST by 10,000."""
    return After("mnist-standard", lambda z: z * 1e4)
