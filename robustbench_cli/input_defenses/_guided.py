"""Guided backpropagation (Springenberg et al., 2015), https://arxiv.org/abs/1412.6806."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


def guided_saliency(model: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return how much each pixel matters to the largest logit (B, H, W), at least 0.

    It is the largest absolute gradient over channels; rectified units, in the way back, let pass
    what is positive only.  Other activations have their usual gradient.  The result has no graph.

    Args:
        model: images (B, C, H, W) in [0, 1] to logits (B, K); an image's must not depend on others.
    """
    # Certificates vote in inference mode, where no graph can be made.
    with torch.inference_mode(False), torch.enable_grad(), _GuidedBackprop():
        leaf = x.detach().clone().requires_grad_()
        (grad,) = torch.autograd.grad(model(leaf).amax(1).sum(), leaf)
    return grad.abs().amax(1)


class _GuidedReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        out = x.clamp(min=0)
        ctx.save_for_backward(out)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (out,) = ctx.saved_tensors
        passed: Tensor = grads[0].clamp(min=0) * (out > 0)
        return passed


def _rectifiers() -> Iterator[Any]:
    for owner in (F, torch, torch.Tensor):
        for name in ("relu", "relu_"):
            if hasattr(owner, name):
                yield getattr(owner, name)


_RECTIFIERS = frozenset(_rectifiers())


class _GuidedBackprop(TorchFunctionMode):
    """A context in which rectified units, modules or functions, have the guided gradient."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _RECTIFIERS:
            return _GuidedReLU.apply(args[0] if args else (kwargs or {})["input"])
        return func(*args, **(kwargs or {}))
