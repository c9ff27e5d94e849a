"""The step of DDN: direction and norm of a perturbation, decoupled (Rony et al., 2019),
https://arxiv.org/abs/1811.09600, algorithm 1."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from robustbench_cli.core.free_looks import surely_all
from robustbench_cli.core.threat import over


def cosine_decay(first: float, last: float, step_index: Tensor, steps: int) -> Tensor:
    """Return (B) values between ``first`` at step 0 and ``last`` at step ``steps``.

    Annealed along half a cosine; ``step_index`` (B) is the step of each row.
    """
    return last + (first - last) * (1 + torch.cos(math.pi * step_index / steps)) / 2


def l2_norms(x: Tensor) -> Tensor:
    """Return the L2 norm of each row of ``x`` (B, ...), shape (B) and at least 1e-12."""
    norms: Tensor = torch.linalg.vector_norm(x.flatten(1), dim=1)
    return norms.clamp_min(1e-12)


def decoupled_step(
    x: Tensor,
    clean: Tensor,
    grad: Tensor,
    random: Callable[[], Tensor],
    rate: Tensor,
    radius: Tensor,
) -> Tensor:
    """Return images (B, C, H, W) at the distance ``radius`` (L2) from the clean ones, boxed.

    Args:
        x: the last iterates (B, C, H, W).
        clean: images (B, C, H, W) in [0, 1].
        grad: the direction to go in (B, C, H, W).
        random: draws the directions to go in where the gradient is zero (B, C, H, W); on a CPU
            it is called only if there is one.
        rate: the length of the step in that direction (B), before the image goes to the sphere.
        radius: of the spheres (B).
    """
    # A saturated cross-entropy can have gradients so small that their squares underflow, or zero
    # gradients: the first are rescaled, the second replaced by a random direction.
    largest = grad.flatten(1).abs().amax(1)
    direction, leads = grad / over(largest.clamp_min(1e-35), x), largest > 1e-35
    if not surely_all(leads):
        direction = torch.where(over(leads, x), direction, random())
    delta = x - clean + over(rate / l2_norms(direction), x) * direction
    return clean + over(radius / l2_norms(delta), x) * delta


def next_radius(radius: Tensor, adversarial: Tensor, clean: Tensor, gamma: float) -> Tensor:
    """Return the radii (B): smaller where the last iterate was adversarial, else larger.

    Args:
        radius: the last radii (B).
        adversarial: whether the last iterates fooled the model (B, bool).
        clean: images (B, C, H, W) in [0, 1], whose farthest corner no radius exceeds.
        gamma: the share by which a radius shrinks or grows.
    """
    changed = radius * torch.where(adversarial, 1 - gamma, 1 + gamma)
    return torch.minimum(changed, l2_norms(torch.maximum(clean, 1 - clean)))


def on_grey_levels(x: Tensor, levels: int) -> Tensor:
    """Return images rounded to so many grey levels in [0, 1]; with 0 levels they stay."""
    return (x * (levels - 1)).round() / (levels - 1) if levels else x
