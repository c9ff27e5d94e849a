"""A convolution whose gradient with respect to the image is cheap on CPUs.

Attacks differentiate down to the image.  oneDNN arranges channels in blocks of 16 and pads missing
ones: on images of one channel this single gradient costs as much as the rest of a small network
together.  Computing the same sums as a matrix product costs a seventh of that.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ThinConv2d(nn.Conv2d):
    """``nn.Conv2d`` with a fast image gradient, for images of one channel or large strides.

    Padding and stride must be the same on all sides.  Outputs and parameters equal those
    of ``nn.Conv2d`` bit for bit; the image's gradient equals it up to rounding.
    """

    same_outputs: ClassVar[bool] = True
    """Bounds may take it for the class that it extends."""

    def forward(self, x: Tensor) -> Tensor:
        thin = self.in_channels == 1 or self.stride[0] > 1
        wants_image_gradient = x.requires_grad and x.device.type == "cpu"
        if not thin or not wants_image_gradient or torch.is_autocast_enabled(x.device.type):
            return super().forward(x)
        (stride, _), (padding, _) = self.stride, map(int, self.padding)
        # Views have graph nodes, which say whether this backward pass wants their gradients.
        weight, bias = (p if p is None else p.view_as(p) for p in (self.weight, self.bias))
        out: Tensor = _ThinConvolution.apply(x, weight, bias, stride, padding)
        return out


class _ThinConvolution(torch.autograd.Function):
    """The convolution with a backward pass of its own for the image."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight, bias, stride, padding)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), (x, weight) = grads, ctx.saved_tensors
        of_image, of_weight, of_bias = ctx.needs_input_grad[:3]
        image = None
        if of_image:
            columns = weight.flatten(1).t() @ grad.flatten(2)
            image = F.fold(columns, x.shape[2:], weight.shape[2:], 1, ctx.padding, ctx.stride)
        if not _wants_parameter_gradients(ctx):
            return image, None, None, None, None
        _, learned, shift = torch.ops.aten.convolution_backward(
            *(grad, x, weight, [weight.shape[0]]),
            *([ctx.stride] * 2, [ctx.padding] * 2, [1, 1], False, [0, 0], 1),
            [False, of_weight, of_bias],
        )
        return image, learned, shift, None, None


def _wants_parameter_gradients(ctx: Any) -> bool:
    """Return whether this backward pass wants gradients of the parameters.

    torch tells a custom function only which inputs could get a gradient, so an attack would pay for
    the weights' gradient at every step.
    """
    _, *parameters = (node for node, _ in ctx.next_functions)
    # torch has no public function for this; its checkpointing and FSDP use this private one.
    return any(node and torch._C._will_engine_execute_node(node) for node in parameters)
