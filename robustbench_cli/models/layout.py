"""Memory layout of a model: channels_last, except where contiguous is faster or safer on a CPU.

The layout changes no result except for rounding.
"""

from typing import Any, ClassVar, TypeVar, cast

import torch
from torch import Tensor, nn

Net = TypeVar("Net", bound=nn.Module)

LARGE = 2**20
"""Bytes of a float32 kernel above which convolutions run on contiguous images on a CPU.

Such a kernel no longer fits into a core's own cache, and oneDNN reads it once per row of a
channels_last image: with 256 channels that takes 1.5 times as long, with 512 three times.
"""

NARROW = 16
"""Input channels per group below which a strided 1x1 convolution is kept contiguous on a CPU.

On processors with AVX2 but without AVX-512, oneDNN (as shipped in torch 2.14.1) computes the
weight's gradient of such a layer in channels_last by writing past the end of a buffer: the process
dies of heap corruption or, worse, trains on with wrong numbers.  Seen with strides 2 to 4 and 1 to
7 input channels, never with 8 or more; other kernel sizes, stride 1, grouped and depthwise
convolutions, bfloat16, contiguous tensors, and passes without the weight's gradient are not
affected.  The rule is wider than what was seen (any stride above 1, twice the channels, every
dtype) because it costs nothing: so narrow a layer never dominates a network's time.
"""


class Contiguous:
    """Mixin of :func:`contiguous_kind`: convolve images in contiguous layout (NCHW)."""

    same_outputs: ClassVar[bool] = True
    """Bounds may take it for the class that it extends."""

    def forward(self, input: Tensor, *rest: Any) -> Tensor:
        """Convolve ``input`` (B, C, H, W) after laying it out contiguously."""
        return cast(Tensor, super().forward(row_major(input), *rest))  # type: ignore[misc]


def contiguous_kind(kind: type[nn.Conv2d]) -> type[nn.Conv2d]:
    """Return a subclass of a convolution class that runs on contiguous images."""
    return type(f"Contiguous{kind.__name__}", (Contiguous, kind), {})


def row_major(x: Tensor) -> Tensor:
    """Return ``x`` (any shape) with contiguous strides that do not also count as channels_last.

    ``contiguous()`` alone is not enough: where one of C, H and W is 1 a tensor counts as both
    layouts at once and keeps the strides that it has.
    """
    return x.contiguous().flatten().view(x.shape)


def laid_out(model: Net, where: torch.device) -> Net:
    """Move ``model`` to a device, in the memory layout for its convolutions there; return it.

    The model itself is changed.  All ``nn.Conv2d`` modules are considered, subclasses and those of
    a user's own model included; convolutions called as ``torch.nn.functional.conv2d`` run in
    channels_last.
    """
    model.to(where, memory_format=torch.channels_last)  # type: ignore[call-overload]
    for module in model.modules():
        if where.type == "cpu" and isinstance(module, nn.Conv2d) and _wants_contiguous(module):
            if not isinstance(module, Contiguous):
                # Only the class changes: parameters, names and hooks stay the same.
                module.__class__ = contiguous_kind(type(module))
            for weight in module.parameters():
                weight.data = row_major(weight.data)
    return model


def restore_classes(model: Net) -> Net:
    """Give convolutions back the classes that :func:`laid_out` replaced; return ``model`` itself.

    torch.fx traces the original classes only.
    """
    ours: list[nn.Module] = [module for module in model.modules() if isinstance(module, Contiguous)]
    for module in ours:
        module.__class__ = type(module).__mro__[2]
    return model


def _wants_contiguous(conv: nn.Conv2d) -> bool:
    """Return whether a convolution is to run on contiguous images on a CPU."""
    if conv.kernel_size == (1, 1):
        return max(conv.stride) > 1 and conv.in_channels // conv.groups < NARROW
    large = conv.weight.numel() * conv.weight.element_size() > LARGE
    return conv.groups == 1 and large
