"""Where a model's numbers lie in memory: channels last, but for what a CPU does better without."""

from typing import TypeVar

import torch
from torch import Tensor, nn

Net = TypeVar("Net", bound=nn.Module)

LARGE = 2**20
"""Bytes of a kernel from which on a CPU's float32 convolutions want their images contiguous.

It does not fit into a core's own cache any more, and oneDNN goes through it once per row of a
channels-last image: with 256 channels that takes 1.5 times as long, with 512 three times."""


class Contiguous(nn.Conv2d):
    """A convolution that lays its images out channel by channel."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.contiguous())


def laid_out(model: Net, where: torch.device) -> Net:
    """``model`` itself, moved to the device and laid out for its convolutions there."""
    model.to(where, memory_format=torch.channels_last)  # type: ignore[call-overload]
    for module in model.modules():
        if where.type == "cpu" and type(module) is nn.Conv2d and _large(module):
            # The class alone changes: parameters, names and hooks stay what they are.
            module.__class__ = Contiguous
            module.weight.data = module.weight.data.contiguous()
    return model


def plain(model: Net) -> Net:
    """``model`` itself with the convolutions of PyTorch that it had: torch.fx knows no others."""
    ours: list[nn.Module] = [module for module in model.modules() if type(module) is Contiguous]
    for module in ours:
        module.__class__ = nn.Conv2d
    return model


def _large(conv: nn.Conv2d) -> bool:
    one = conv.kernel_size == (1, 1) or conv.groups > 1
    return not one and conv.weight.numel() * conv.weight.element_size() > LARGE
