"""Whether a model's gradients say what the model does: measured on a few images.

Gradients that are zero, that are not finite, or that do not agree with differences of the answers
are obfuscated (Athalye et al., 2018, https://arxiv.org/abs/1802.00420).
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.gradient_ascent import gradient
from robustbench_cli.core.losses import margin, wide
from robustbench_cli.core.same_draws import same_draws
from robustbench_cli.core.threat import Threat

DIRECTIONS = 10
"""Random directions of the ball along which differences are taken."""
REACH = 0.25
"""The length of half a difference, as a fraction of eps: a much shorter one misses staircases."""
LEAST_AGREEMENT = 0.9
"""The correlation of differences and gradients below which gradients are not trusted."""
MOST_ZERO = 0.01
"""The share of images without a usable gradient from which on gradients are not trusted."""


class GradientQuality(NamedTuple):
    """What was measured of a model's gradients."""

    unusable: float
    """The share of images whose margin has a gradient of zero, or one that is not finite."""
    agreement: float
    """The correlation, over images and directions, of the margin's differences and of what its
    gradient says of them: -1 to 1; 0 where either is constant."""

    @property
    def sound(self) -> bool:
        """True if an attack can follow them."""
        return self.unusable <= MOST_ZERO and self.agreement >= LEAST_AGREEMENT


def measure_gradients(
    model: nn.Module, truth: nn.Module, x: Tensor, y: Tensor, threat: Threat, noise: Noise
) -> GradientQuality:
    """Compare a model's gradients with differences of another one's margins, inside the ball.

    Args:
        model: the model whose gradient is taken.
        truth: the model whose answers count; the same one, or the one that ``model`` is a view of.
        x: clean images (B, C, H, W) in [0, 1].
        y: labels (B).
        threat: with a mask, bound to these images.
        noise: keyed by example, B of them.
    """
    noise = noise.fork("gradient quality")
    start = threat.random_start(x, noise.fork("start"))
    grad = margin_gradient(model, start, y)
    flat = grad.flatten(1)
    usable = flat.isfinite().all(1) & flat.any(1)
    expected, found = [], []
    for number in range(DIRECTIONS):
        direction = threat.steepest(noise.fork(f"direction {number}").normal(x))
        step = REACH * threat.eps * direction
        ahead, behind = threat.project(start + step, x), threat.project(start - step, x)
        expected.append(((ahead - behind) * grad).flatten(1).sum(1))
        found.append(_margins(truth, ahead, y) - _margins(truth, behind, y))
    agreement = _correlation(torch.cat(expected), torch.cat(found))
    return GradientQuality(float((~usable).float().mean()), agreement)


def margin_gradient(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return the gradient (B, C, H, W) of the margin at images ``x``; zeros where there is none."""
    with same_draws():
        try:
            return gradient(model, margin, y, x)[1]
        except RuntimeError:  # the logits do not depend on the image, as far as autograd knows
            return torch.zeros_like(x)


def _margins(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad(), same_draws():
        return margin(wide(model(x)), y)


def _correlation(a: Tensor, b: Tensor) -> float:
    """The correlation of two samples (N); 0 where it is not defined."""
    a, b = a.double(), b.double()
    if not bool(a.isfinite().all() & b.isfinite().all()):
        return 0.0
    a, b = a - a.mean(), b - b.mean()
    size = float(a.norm() * b.norm())
    return float(a @ b) / size if size > 0 else 0.0
