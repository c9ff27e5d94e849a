"""What a gradient says of a model's answers, compared with differences of the answers.

Gradients that do not agree with differences are obfuscated (Athalye et al., 2018,
https://arxiv.org/abs/1802.00420).
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.gradient_ascent import Loss
from robustbench_cli.core.losses import lead
from robustbench_cli.core.threat import Threat, over


class Secants(NamedTuple):
    """Differences of the strongest wrong class's lead (B, directions), in float64."""

    stated: Tensor
    """What the gradient says of them."""
    seen: Tensor
    """What they are."""

    @property
    def correlation(self) -> float:
        """Their correlation, -1 to 1; NaN where one of them is zero or not finite."""
        size = self.stated.norm() * self.seen.norm()
        return float((self.stated * self.seen).sum() / size)


def secants(
    answers: Callable[[Tensor], Tensor],
    gradient: Callable[[Loss, Tensor, Tensor], Tensor],
    start: Tensor,
    y: Tensor,
    threat: Threat,
    noise: Noise,
    *,
    distance: float,
    directions: int,
) -> Secants:
    """Follow the lead of the strongest wrong class along random signs, forward and backward.

    Args:
        answers: from images (B, C, H, W) to logits (B, K).
        gradient: from a loss, images and its target to its gradient (B, C, H, W).
        start: images (B, C, H, W) in [0, 1] to begin at.
        y: labels (B).
        threat: with a mask, bound to these images.
        noise: keyed by example, B of them.
        distance: how far each way, as a fraction of eps.
        directions: random sign vectors for each image.
    """
    unit = torch.ones_like(start)
    step = distance * threat.eps / threat.distance(unit, torch.zeros_like(unit)).clamp_min(1e-12)
    # Away from the border of the box, so that both ends are images.
    edge = over(step.clamp(max=0.5), start)
    centre = torch.maximum(torch.minimum(start, 1 - edge), edge)
    wrong = answers(centre).scatter(1, y[:, None], float("-inf")).argmax(1)
    pairs = torch.stack([y, wrong], 1)
    grad = gradient(lambda logits, pair: lead(logits, *pair.unbind(1)), centre, pairs)
    stated, seen = [], []
    for number in range(directions):
        signs = noise.fork(f"direction {number}").normal(centre).sign()
        change = edge * threat.allowed(signs)
        ends = [lead(answers(centre + side * change), y, wrong) for side in (1, -1)]
        stated.append(2 * (grad * change).flatten(1).sum(1))
        seen.append(ends[0] - ends[1])
    return Secants(torch.stack(stated, 1).double(), torch.stack(seen, 1).double())
