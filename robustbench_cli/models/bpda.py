"""Backward pass differentiable approximation, BPDA (Athalye et al., 2018).

https://arxiv.org/abs/1802.00420.  A model with a layer that rounds, re-encodes or otherwise has no
useful gradient seems robust to every gradient attack.  Wrap that layer in the model file: the
model's outputs stay exactly the same, and attacks get the gradient of a differentiable surrogate::

    model = nn.Sequential(bpda(JPEG(quality=75)), classifier)
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn


def bpda(
    module: Callable[[Tensor], Tensor], surrogate: Callable[[Tensor], Tensor] | None = None
) -> nn.Module:
    """Return a module that computes ``module`` forward and differentiates ``surrogate`` backward.

    Args:
        module: the layer as the model uses it, on tensors (B, ...); it needs no gradient and may be
            any callable.
        surrogate: a differentiable approximation with outputs of the same shape; None is the
            identity, for layers that return nearly their input.

    Returns:
        A module whose output equals ``module(x)`` bit for bit and whose gradient with respect to x
            is the surrogate's; weights inside ``module`` get no gradient.

    Raises:
        ValueError: in the forward pass, if the two outputs differ in shape.
    """
    return BPDA(module, surrogate)


class BPDA(nn.Module):
    """The module that :func:`bpda` returns."""

    def __init__(
        self, module: Callable[[Tensor], Tensor], surrogate: Callable[[Tensor], Tensor] | None
    ) -> None:
        super().__init__()
        self.module = module
        self.surrogate = surrogate

    def forward(self, x: Tensor) -> Tensor:
        # No test for enabled gradients here: torch.fx would record its result for good.
        exact = self.module(x.detach())
        return swap_gradient(exact, x if self.surrogate is None else self.surrogate(x))


def swap_gradient(exact: Tensor, approximate: Tensor) -> Tensor:
    """Return the values of ``exact`` with the gradient of ``approximate``, both (B, ...).

    Raises:
        ValueError: they differ in shape.
    """
    if exact.shape != approximate.shape:
        raise ValueError(
            f"bpda: the surrogate returns {tuple(approximate.shape)}, "
            f"but the module {tuple(exact.shape)}"
        )
    return _SwapGradient.apply(exact, approximate)  # type: ignore[no-any-return]


# Keep it as one call in torch.fx graphs, which would otherwise lose the gradient silently.
fx.wrap("swap_gradient")


class _SwapGradient(torch.autograd.Function):
    """The identity on the first input, with the gradient passed to the second.

    ``exact + (surrogate(x) - surrogate(x).detach())`` would do the same but for its rounding.
    """

    @staticmethod
    def forward(_ctx: Any, exact: Tensor, _approximate: Tensor) -> Tensor:
        return exact.clone()

    @staticmethod
    def backward(_ctx: Any, grad: Tensor) -> Any:
        return None, grad
