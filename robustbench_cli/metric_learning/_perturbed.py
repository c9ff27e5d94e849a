"""Images that are attacked through their embeddings, in evaluation mode."""

import torch
from torch import Tensor, nn

from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.gradient_ascent import (
    Ascent,
    Iterate,
    Loss,
    ascend,
    fixed_logits,
    iterate,
    projected_step,
)
from robustbench_cli.core.model_modes import evaluating
from robustbench_cli.core.threat import Threat

TINY = 1e-7
"""Size of the noise by which a reference differs in the first step of ``shifted``."""


def distances(z: Tensor, to: Tensor) -> Tensor:
    """Return the Euclidean distance of each embedding (B, D) to its counterpart (B, D)."""
    apart: Tensor = torch.linalg.vector_norm(z - to, dim=1)
    return apart


def moved(
    model: nn.Module,
    gain: Loss,
    target: Tensor,
    x: Tensor,
    threat: Threat,
    noise: Noise,
    climb: Ascent,
) -> Tensor:
    """Return images (B, C, H, W) in the ball at which ``gain(embeddings, target)`` is large.

    Args:
        gain: numbers that do not depend on how images are batched, whose sum is climbed.
        x: clean images (B, C, H, W) in [0, 1].
        noise: keyed by example, B of them.
    """
    with evaluating(model):
        return ascend(model, gain, target, x, threat, noise, climb)


def shifted(
    model: nn.Module, target: Tensor, x: Tensor, threat: Threat, noise: Noise, climb: Ascent
) -> Tensor:
    """Return images (B, C, H, W) whose embeddings are far from those of ``x``.

    Where the attack starts the distance is 0 and has no gradient.  So the first step has a
    reference that differs by 1e-7 times -1, 0 or 1 (Zhou et al., 2020,
    https://arxiv.org/abs/2002.11293).  It is taken from a pass on the same batch: in another one
    an embedding is rounded differently, by about as much.

    Args:
        target: the embeddings (B, D) of ``x``.
        x: clean images (B, C, H, W) in [0, 1].
        noise: keyed by example, B of them.
    """

    def onwards(here: Iterate) -> Tensor:
        return projected_step(here.x_adv, here.grad, x, threat, climb.step)

    with evaluating(model):
        own = fixed_logits(model, x)
        near = own + TINY * ((3 * noise.fork("reference").uniform(own)).floor() - 1)
        start = climb.begin(x, threat, noise)
        first = iterate(model, distances, near, start, 1, onwards)
        return iterate(model, distances, target, first, climb.steps - 1, onwards)
