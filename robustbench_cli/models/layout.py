"""Memory layout of a model: channels last, except where a CPU is faster or safer without it."""

from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

Net = TypeVar("Net", bound=nn.Module)

LARGE = 2**20
"""Bytes of a kernel from which on a CPU's float32 convolutions want their images contiguous.

It does not fit into a core's own cache any more, and oneDNN goes through it once per row of a
channels-last image: with 256 channels that takes 1.5 times as long, with 512 three times."""

NARROW = 16
"""Input channels per group below which a strided 1x1 convolution is kept contiguous on a CPU.

On processors with AVX2 but without AVX-512, oneDNN (as shipped in torch 2.14.1) computes the
weight's gradient of such a layer in channels_last by writing behind the end of a buffer: the
process dies of heap corruption or, worse, trains on with wrong numbers.  Seen with strides 2 to 4
and 1 to 7 input channels, never with 8 or more; other kernel sizes, stride 1, grouped and depthwise
convolutions, bfloat16, contiguous tensors, and passes without the weight's gradient are fine.  The
rule is wider than what was seen (any stride, twice the channels, every dtype), because it costs
nothing: so narrow a layer is never what a network spends its time on."""


class Contiguous:
    """What ``contiguous_kind`` adds to a convolution: images laid out channel by channel."""

    def forward(self, input: Tensor, *rest: Any) -> Tensor:
        """The convolution of ``input`` (B, C, H, W), in the layout of one channel after another."""
        return cast(Tensor, super().forward(row_major(input), *rest))  # type: ignore[misc]


def contiguous_kind(kind: type[nn.Conv2d]) -> type[nn.Conv2d]:
    """A subclass of a convolution class that runs on contiguous images."""
    return type(f"Contiguous{kind.__name__}", (Contiguous, kind), {})


def row_major(x: Tensor) -> Tensor:
    """The same tensor with strides that no one can take for channels_last.

    ``contiguous()`` alone is not enough: where one of C, H and W is 1 a tensor counts as contiguous
    and as channels_last at once, and keeps the strides that it has.
    """
    return x.contiguous().flatten().view(x.shape)


def laid_out(model: Net, where: torch.device) -> Net:
    """``model`` itself, moved to the device and laid out for its convolutions there.

    Every ``nn.Conv2d`` is looked at, those of a user's own model and of subclasses too; a model
    that calls ``torch.nn.functional.conv2d`` with weights of its own is laid out channels_last.
    """
    model.to(where, memory_format=torch.channels_last)  # type: ignore[call-overload]
    for module in model.modules():
        if where.type == "cpu" and isinstance(module, nn.Conv2d) and _wants_contiguous(module):
            if not isinstance(module, Contiguous):
                # The class alone changes: parameters, names and hooks stay what they are.
                module.__class__ = contiguous_kind(type(module))
            for weight in module.parameters():
                weight.data = row_major(weight.data)
    return model


def restore_classes(model: Net) -> Net:
    """``model`` itself with the convolution classes that it had: torch.fx knows no others."""
    ours: list[nn.Module] = [module for module in model.modules() if isinstance(module, Contiguous)]
    for module in ours:
        module.__class__ = type(module).__mro__[2]
    return model


def _wants_contiguous(conv: nn.Conv2d) -> bool:
    if conv.kernel_size == (1, 1):
        return max(conv.stride) > 1 and conv.in_channels // conv.groups < NARROW
    large = conv.weight.numel() * conv.weight.element_size() > LARGE
    return conv.groups == 1 and large
