"""Insertion and deletion (Petsiuk et al., 2018, RISE), https://arxiv.org/abs/1806.07421."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from robustbench_cli.core.example_rng import Noise

_SIGMA, _RADIUS = 5.0, 5
"""The blur from which insertion starts, in pixels: the authors' for images of 224 pixels."""


class RankCurves(NamedTuple):
    """Probabilities of the class on the way, each (B, steps + 1)."""

    insertion: Tensor
    """From the blurred image, with 0, 1/steps, ... of the pixels as they are, important first."""
    deletion: Tensor
    """From the image, with as many of them black, important first."""


def rank_curves(
    model: Callable[[Tensor], Tensor],
    x: Tensor,
    target: Tensor,
    maps: Tensor,
    steps: int,
    noise: Noise,
) -> RankCurves:
    """Return the probabilities of the classes ``target`` (B) as pixels come and go by their rank.

    Section 4.1.  Equally important pixels go in a random order keyed by the example, so that an
    even map is a random one.  The blur is a Gaussian of 5 pixels cut off at 5, mirrored at the
    borders where the authors' takes black ones.

    Args:
        model: images (B, C, H, W) in [0, 1] to logits (B, K).
        x: images (B, C, H, W).
        maps: importances (B, H, W).
        steps: parts in which the pixels come and go.
        noise: keyed by example, B of them.
    """
    rank = _ranks(maps.flatten(1), noise)
    start = _blurred(x)
    insertion: list[Tensor] = []
    deletion: list[Tensor] = []
    with torch.no_grad():
        for step in range(steps + 1):
            moved = (rank < round(step / steps * rank.shape[1])).view(len(x), 1, *x.shape[2:])
            for found, image in (
                (insertion, torch.where(moved, x, start)),
                (deletion, torch.where(moved, torch.zeros_like(x), x)),
            ):
                probability = model(image).double().softmax(1)
                found.append(probability.gather(1, target[:, None]).squeeze(1))
    return RankCurves(torch.stack(insertion, 1), torch.stack(deletion, 1))


def area_under(curves: Tensor) -> Tensor:
    """Return the area (B) under curves (B, steps + 1) over [0, 1], by trapezoids."""
    return (curves[:, 1:] + curves[:, :-1]).mean(1) / 2


def _ranks(flat: Tensor, noise: Noise) -> Tensor:
    """Return each pixel's place (B, P) when sorted from the most important to the least."""
    shuffled = noise.fork("ties").uniform(flat).argsort(1)
    order = flat.gather(1, shuffled).argsort(dim=1, descending=True, stable=True)
    order = shuffled.gather(1, order)
    places = torch.arange(flat.shape[1], device=flat.device).expand_as(order)
    return torch.empty_like(order).scatter(1, order, places)


def _blurred(x: Tensor) -> Tensor:
    from scipy.ndimage import gaussian_filter  # type: ignore[import-untyped]

    blur = (0, 0, _SIGMA, _SIGMA)
    found = gaussian_filter(x.cpu().numpy(), sigma=blur, radius=(0, 0, _RADIUS, _RADIUS))
    return torch.from_numpy(np.asarray(found)).to(x)
