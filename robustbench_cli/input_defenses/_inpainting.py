"""Inpainting by the Laplace equation: every missing pixel is the mean of its neighbours."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def inpainted(x: Tensor, missing: Tensor) -> Tensor:
    """Return images whose missing pixels are filled in from the border of the hole.

    The result is harmonic in the hole, no slope leads across the image's own border, and it is
    differentiable with respect to ``x``.  An image without a pixel left becomes black.

    Args:
        x: images (B, C, H, W).
        missing: the pixels to fill in, bool (B, 1, H, W).
    """
    filled: Tensor = _Inpainting.apply(x, missing.to(x))
    return torch.where(missing, filled, x)


class _Inpainting(torch.autograd.Function):
    """The solution in the hole, zero elsewhere; linear in the known pixels.

    With A the Laplacian in the hole and B the sum over known neighbours it is A^-1 B x, and as A
    is symmetric, the gradient is B^T A^-1 g.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, hole: Tensor) -> Tensor:
        ctx.save_for_backward(hole)
        return _solved(hole * _neighbours(x * (1 - hole)), hole)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (hole,) = ctx.saved_tensors
        return (1 - hole) * _neighbours(_solved(hole * grads[0], hole)), None


def _neighbours(x: Tensor) -> Tensor:
    """The sum of the pixels above, below, to the left and to the right; zero outside."""
    around = F.pad(x, (1, 1, 1, 1))
    rows, columns = around[..., 1:-1], around[..., 1:-1, :]
    return rows[..., :-2, :] + rows[..., 2:, :] + columns[..., :-2] + columns[..., 2:]


def _solved(right: Tensor, hole: Tensor) -> Tensor:
    """Solve (number of neighbours) u - (sum of neighbours in the hole) = right, in the hole.

    By successive over-relaxation, black and white pixels in turn, so many sweeps that the error in
    a hole as large as the image is about 1e-5 of the solution.  Every image takes as many.
    """
    height, width = right.shape[2:]
    degree = _neighbours(torch.ones_like(right[:1, :1]))
    side = max(height, width)
    relaxation = 2 / (1 + math.sin(math.pi / (side + 1)))
    rows, columns = (torch.arange(length, device=right.device) for length in (height, width))
    squares = rows[:, None] + columns
    steps = [relaxation * hole * (squares % 2 == colour).to(hole) / degree for colour in (0, 1)]
    u = torch.zeros_like(right)
    for _ in range(2 * side):
        for step in steps:
            u = u + step * (right + _neighbours(u) - degree * u)
    return u
