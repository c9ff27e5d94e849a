"""Backward pass differentiable approximation, BPDA (Athalye et al., 2018).

https://arxiv.org/abs/1802.00420.  A model whose first layer rounds, re-encodes or otherwise
shatters the gradient looks robust to every gradient attack.  Wrapping that layer in the model
file lets the attacks through while the model answers exactly as before::

    model = nn.Sequential(bpda(JPEG(quality=75)), classifier)
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn


def bpda(
    module: Callable[[Tensor], Tensor], surrogate: Callable[[Tensor], Tensor] | None = None
) -> nn.Module:
    """``module`` forward, ``surrogate`` backward.

    Args:
        module: what the model really does; it need not have a gradient, nor be a module.
        surrogate: a differentiable stand-in with outputs of the same shape; None is the
            identity, for whatever returns nearly what it is given.

    Returns:
        A module whose output is ``module(x)`` to the bit, and whose gradient is the surrogate's;
        weights inside ``module`` get none.
    """
    return BPDA(module, surrogate)


class BPDA(nn.Module):
    """What ``bpda`` returns."""

    def __init__(
        self, module: Callable[[Tensor], Tensor], surrogate: Callable[[Tensor], Tensor] | None
    ) -> None:
        super().__init__()
        self.module = module
        self.surrogate = surrogate

    def forward(self, x: Tensor) -> Tensor:
        # Whether gradients are on is not asked: a trace of the model would keep the answer.
        exact = self.module(x.detach())
        return _swapped(exact, x if self.surrogate is None else self.surrogate(x))


def _swapped(exact: Tensor, approximate: Tensor) -> Tensor:
    """The first tensor, with the gradient of the second."""
    if exact.shape != approximate.shape:
        raise ValueError(
            f"bpda: the surrogate returns {tuple(approximate.shape)}, "
            f"but the module {tuple(exact.shape)}"
        )
    return _Swap.apply(exact, approximate)  # type: ignore[no-any-return]


# One opaque call in traced graphs, which would otherwise lose the gradient without a word.
fx.wrap("_swapped")


class _Swap(torch.autograd.Function):
    # Adding surrogate(x) - surrogate(x).detach() would do, were it not for its rounding.
    @staticmethod
    def forward(_ctx: Any, exact: Tensor, _approximate: Tensor) -> Tensor:
        return exact.clone()

    @staticmethod
    def backward(_ctx: Any, grad: Tensor) -> Any:
        return None, grad
