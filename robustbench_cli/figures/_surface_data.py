"""The loss around one image, on the plane spanned by its gradient and a random direction.

Zhang & Wang (2019), https://arxiv.org/abs/1907.10764, figure 4.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.gradient_ascent import gradient
from robustbench_cli.core.losses import cross_entropy, margin
from robustbench_cli.core.threat import Threat
from robustbench_cli.evaluation.verifier import predict, unchanged_model

POINTS_PER_BATCH = 256
"""Number of images that go through the model at once."""


@dataclass(frozen=True, kw_only=True)
class Surface:
    """The model's outputs on the images of a plane; each tensor is (points, points).

    The first dimension follows the gradient's direction, the second the random one.
    """

    loss: Tensor
    """Cross-entropy, in nats."""
    margin: Tensor
    """Largest wrong logit minus the true one: positive where the image is misclassified."""
    distance: Tensor
    """Distance from the central image, in the norm of the threat."""


def surface(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    noise: Noise,
    offsets: Tensor,
    *,
    clip: bool = False,
    done: Callable[[int, int], None] = lambda _done, _of: None,
) -> Surface:
    """Return the model's loss, margin and distance at x + a g + b r for all offsets a and b.

    g is the unit step of steepest ascent (the sign of the gradient under Linf); r has random signs
    (Rademacher) and is scaled to length 1 in the same norm.

    Args:
        x: one image (1, C, H, W) in [0, 1].
        y: its label (1).
        threat: gives the norm; its eps is not used.
        noise: keyed by the example.
        offsets: positions along both directions (points), in the norm's units of pixels in [0, 1].
        clip: whether images are clipped to [0, 1], which folds the plane.
        done: called with the number of images that are finished and of all images.

    Raises:
        UserError: the gradient is zero, so that it has no direction.
    """
    with unchanged_model(model):
        _, grad = gradient(model, cross_entropy, y, x)
        if not bool(grad.any()):
            raise UserError(
                "the gradient at this image is zero in float32 (the model is that sure of it); "
                "choose another with image=INDEX"
            )
        sign = (noise.fork("rademacher").uniform(x) < 0.5).to(x) * 2 - 1
        along, across = threat.steepest(grad), sign / threat.distance(sign, torch.zeros_like(sign))
        steps = torch.cartesian_prod(offsets.to(x), offsets.to(x))
        parts: list[Tensor] = []
        for a, b in (
            some.view(-1, 2, 1, 1, 1).unbind(1) for some in torch.split(steps, POINTS_PER_BATCH)
        ):
            images = x + a * along + b * across
            images = images.clamp(0, 1) if clip else images
            logits, labels = predict(model, images), y.expand(len(images))
            far = threat.distance(images, x)
            parts.append(torch.stack([cross_entropy(logits, labels), margin(logits, labels), far]))
            done(sum(part.shape[1] for part in parts), len(steps))
    loss, gap, distance = torch.cat(parts, 1).view(3, len(offsets), len(offsets))
    return Surface(loss=loss, margin=gap, distance=distance)
