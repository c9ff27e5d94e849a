"""A model whose head is replaced by a binary readout that one known point of the ball crosses.

After Zimmermann et al. (2022, https://arxiv.org/abs/2206.13991) and their code,
https://github.com/google-research/active-adversarial-tests.
"""

import torch
from torch import Tensor, nn

from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.threat import Threat, over
from robustbench_cli.models.taps import EMBEDDING, tapped

INNER_GAP = 0.05
"""Inner points stay this fraction of eps away from the border of the ball, as in the code."""
MOST_INNER = 999
"""The number of inner points in the code."""


class Binarised(nn.Module):
    """The features of a model, read by one linear function: class 1 where it is positive."""

    def __init__(self, model: nn.Module, weight: Tensor, bias: Tensor) -> None:
        """Keep the readout.

        Args:
            model: images (B, C, H, W) to logits; the input of its last layer is read.
            weight: of the linear function (F).
            bias: a number.
        """
        super().__init__()
        self.model, self.weight, self.bias = model, weight, bias

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, 2) of images (B, C, H, W) in [0, 1]."""
        # A model in float64 has such features; the readout has the dtype of the images.
        score = features(self.model, x).to(self.weight) @ self.weight + self.bias
        return torch.stack([-score, score], 1)


def features(model: nn.Module, x: Tensor) -> Tensor:
    """Return the input (B, F) of the last layer for images (B, C, H, W), with its graph."""
    with tapped(model, [EMBEDDING]) as found:
        model(x)
    return found[EMBEDDING]


def binarised(model: nn.Module, x: Tensor, threat: Threat, noise: Noise) -> Binarised | None:
    """Return a binary net that calls an image and points around it 0, and one point at eps 1.

    The readout is the least-norm linear function with the values -1 and 1 there, and its logits
    range as far as the model's own: a reconstruction of the logistic regression of the code, with
    fewer inner points than features, so that it exists.

    Args:
        x: the image (1, C, H, W) in [0, 1].
        threat: with a mask, bound to this image.
        noise: keyed by it.

    Returns:
        None where the features do not separate the point from the others.
    """
    with torch.no_grad():
        logits = model(x)
        count = min(MOST_INNER, max(8, features(model, x).shape[1] // 2))
        points = torch.cat(
            [x, inner_points(x, threat, noise, count), outer_point(x, threat, noise)]
        )
        known = features(model, points).double()
    target = torch.full_like(known[:, 0], -1.0)
    target[-1] = 1
    centre = known.mean(0)
    apart = known - centre
    gram = apart @ apart.T
    ridge = 1e-10 * gram.diagonal().mean() * torch.eye(len(gram), device=gram.device).double()
    weight = apart.T @ torch.linalg.lstsq(gram + ridge, (target - target.mean())[:, None]).solution
    weight = weight.squeeze(1)
    score = known @ weight
    highest, outer = score[:-1].amax(), score[-1]
    if not bool(outer > highest + 1e-6 * (score.amax() - score.amin())):
        return None
    middle = (highest + outer) / 2
    scale = (logits.amax() - logits.amin()).double() / (2 * (score - middle).abs().amax())
    return Binarised(model, (scale * weight).to(x), (-scale * middle).to(x))


def inner_points(x: Tensor, threat: Threat, noise: Noise, count: int) -> Tensor:
    """Return random points (count, C, H, W) of the ball around an image (1, C, H, W)."""
    starts = [threat.random_start(x, noise.fork(f"inner {number}")) for number in range(count)]
    return x + (1 - INNER_GAP) * (torch.cat(starts) - x)


def outer_point(x: Tensor, threat: Threat, noise: Noise) -> Tensor:
    """Return a random point (1, C, H, W) of the box at distance eps, or as far as there is room."""
    step = threat.direction(x, noise.fork("outer"))
    # Turned round where the box ends, so that the distance is not lost to clipping.
    far = x + threat.eps * step
    step = torch.where((far < 0) | (far > 1), -step, step)
    size = threat.distance(x + step, x).clamp_min(1e-12)
    return threat.project(x + over(threat.eps / size, x) * step, x)
