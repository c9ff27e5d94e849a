"""Whether a model's gradients say what the model does: measured on a few images.

Gradients that are zero, that are not finite, or that do not agree with differences of the answers
are obfuscated (Athalye et al., 2018, https://arxiv.org/abs/1802.00420).
"""

from math import isfinite
from typing import NamedTuple

import torch
from torch import Tensor, nn

from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.gradient_ascent import Loss, gradient
from robustbench_cli.core.losses import margin, wide
from robustbench_cli.core.same_draws import same_draws
from robustbench_cli.core.secants import secants
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
    """The correlation, over images and directions, of differences of the answers and of what the
    gradient says of them: -1 to 1; 0 where there are none."""

    @property
    def sound(self) -> bool:
        """True if an attack can follow them."""
        return self.unusable <= MOST_ZERO and self.agreement >= LEAST_AGREEMENT


def measure_gradients(
    model: nn.Module, truth: nn.Module, x: Tensor, y: Tensor, threat: Threat, noise: Noise
) -> GradientQuality:
    """Compare a model's gradients with differences of another one's answers, inside the ball.

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
    # At the start itself: at the border of [0, 1] a gradient may be infinite.
    flat = margin_gradient(model, start, y).flatten(1)
    usable = flat.isfinite().all(1) & flat.any(1)
    found = secants(
        lambda images: _answers(truth, images),
        lambda loss, images, target: _gradient(model, loss, images, target),
        start,
        y,
        threat,
        noise,
        distance=REACH,
        directions=DIRECTIONS,
    )
    agreement = found.correlation
    return GradientQuality(
        float((~usable).float().mean()), agreement if isfinite(agreement) else 0.0
    )


def margin_gradient(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return the gradient (B, C, H, W) of the margin at images ``x``; zeros where there is none."""
    return _gradient(model, margin, x, y)


def _gradient(model: nn.Module, loss: Loss, x: Tensor, target: Tensor) -> Tensor:
    with same_draws():
        try:
            return gradient(model, loss, target, x)[1]
        except RuntimeError:  # the logits do not depend on the image, as far as autograd knows
            return torch.zeros_like(x)


def _answers(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad(), same_draws():
        return wide(model(x))
