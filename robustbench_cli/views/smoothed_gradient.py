"""Gradients averaged over a neighbourhood, against shattered ones (Athalye et al., 2018).

https://arxiv.org/abs/1802.00420; the average over noise is that of SmoothGrad (Smilkov et al.,
2017), https://arxiv.org/abs/1706.03825.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.losses import wide
from robustbench_cli.core.registry import Number
from robustbench_cli.core.threat import Threat
from robustbench_cli.models.bpda import bpda
from robustbench_cli.views import VIEWS, View, ViewSubject

_INSIDE = 1e-3
"""Neighbours keep this distance from the border of [0, 1], where a square root has no gradient."""


@VIEWS.register("smoothed-gradient")
@dataclass(frozen=True, kw_only=True)
class SmoothedGradient(View):
    """Average the gradient over points around the image, in pairs on opposite sides of it.

    The points are the same for every image and every step, and drawn from a ball of half the
    radius.  The answer is that at the image itself.  Called for where gradients are not to be
    trusted and there are some.
    """

    pairs: Annotated[int, Field(ge=1)] = 4
    """Pairs of points."""
    reach: Annotated[Number, Field(gt=0)] = 0.5
    """The radius that they are drawn from, as a fraction of eps."""

    @property
    def passes(self) -> int:
        return 1 + 2 * self.pairs

    def build(self, subject: ViewSubject) -> nn.Module | None:
        if subject.gradients.sound:
            return None
        centre = torch.full_like(subject.x[:1], 0.5).expand(self.pairs, *subject.x.shape[1:])
        ball = Threat(subject.threat.norm, self.reach * subject.threat.eps)
        noise = Noise(0, torch.arange(self.pairs, device=centre.device)).fork("smoothed gradient")
        offsets = ball.random_start(centre, noise) - centre
        average = _Average(subject.model, torch.cat([offsets, -offsets]))
        view = bpda(subject.model, average).eval()
        return view if subject.gradients_of(view).unusable < 1 else None


class _Average(nn.Module):
    """The mean logits of a model at points around each image."""

    offsets: Tensor

    def __init__(self, model: nn.Module, offsets: Tensor) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("offsets", offsets)

    def forward(self, x: Tensor) -> Tensor:
        # The gradient of the clamp would be zero for half of the points at a black pixel.
        points = [x + (_inside(x + offset) - x).detach() for offset in self.offsets]
        return torch.stack([wide(self.model(each)) for each in points]).mean(0)


def _inside(x: Tensor) -> Tensor:
    return x.clamp(_INSIDE, 1 - _INSIDE)
