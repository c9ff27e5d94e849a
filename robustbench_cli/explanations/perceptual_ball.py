"""The perceptual ball (Elliott, Law and Russell, CVPR 2021), https://arxiv.org/abs/1912.09405."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from robustbench_cli.core.gradient_ascent import Steps
from robustbench_cli.core.losses import margin, picked
from robustbench_cli.core.registry import Number
from robustbench_cli.explanations import (
    EXPLANATIONS,
    CounterfactualExplanation,
    ExplainedImages,
)
from robustbench_cli.explanations._perceptual_ball import (
    RELUS,
    BallObjective,
    BallSettings,
    feature_distances,
    tap_names,
)

_SIDE = 224
"""The side, in pixels, of the images that ``sigma`` is given for."""


@EXPLANATIONS.register("perceptual-ball")
@dataclass(frozen=True, kw_only=True)
class PerceptualBall(CounterfactualExplanation):
    """The change of the image that takes the class's margin to v and hardly moves inner features.

    L-BFGS on (m - v)^2 + s MSE(x', x) + gamma sum of MSE(f(x'), f(x)) over taps f, from x, each
    image by itself; the importance of a pixel is the root mean square of its change over channels,
    blurred.  Unlike the authors' code (f530675): pixels are in [0, 1] and not normalised, so that
    s = 1 weighs less there; a batch is explained image by image, where theirs explains the first;
    ``box`` is L-BFGS-B, where their optional clamp writes the lower bound into pixels above the
    upper one, behind the optimizer's back; the first and the last class do not stop it; weights get
    no gradients; no global flag is set; any model's layers can be taps; a descent that ran away
    returns the best image that it evaluated.
    """

    v: Number = -2.0
    """The margin to reach: the class's logit minus the largest other; below 0 the class changes."""
    s: Annotated[Number, Field(ge=0)] = 1.0
    """Weight of the distance in pixels."""
    gamma: Annotated[Number, Field(ge=0)] = 10000.0
    """Weight of the distances in features; it is tuned for those of VGG-19 on ImageNet."""
    relative: bool = False
    """Count gamma in units of the image's own: at 1 both distances weigh the same at x + 0.01
    N(0, 1)."""
    taps: str = RELUS
    """Layers whose outputs are compared: names or patterns, parted by commas; relus: all modules
    nn.ReLU, of one that is called several times the last output; functional ReLUs are not seen."""
    form: Literal["margin", "class"] = "margin"
    """margin: the class against the largest other; class: its logit alone is taken to v."""
    iterations: Steps = 100
    """Most iterations of L-BFGS; the authors' example has 100, their function 200."""
    rate: Annotated[Number, Field(gt=0)] = 1.0
    """Learning rate of L-BFGS, which has no line search."""
    box: bool = False
    """Keep the image in [0, 1], by L-BFGS-B; the paper does not."""
    sigma: Annotated[Number, Field(ge=0)] = 2.0
    """Standard deviation of the blur in pixels at a side of 224; smaller images get less."""

    def changed(self, asked: ExplainedImages) -> tuple[Tensor, Mapping[str, Tensor]]:
        taps = tap_names(asked.model, self.taps) if self.gamma else ()
        noise = asked.noise.fork("perceptual-ball").normal(asked.x)
        settings = BallSettings(
            v=self.v,
            s=self.s,
            gamma=self.gamma,
            relative=self.relative,
            steps=self.iterations,
            rate=self.rate,
            box=self.box,
        )
        found = []
        for x, target, drawn in zip(asked.x, asked.target, noise, strict=True):
            score = partial(self._score, target=target[None])
            with BallObjective.opened(
                asked.model, x[None], score, settings, taps, drawn[None]
            ) as ball:
                found.append(ball.descend())
        moved = torch.cat([each.x for each in found])
        told = tap_names(asked.model, self.taps, needed=False)  # also where gamma is 0
        if not told:
            return moved, {}
        return moved, {"feature distance": feature_distances(asked.model, asked.x, moved, told)}

    def _score(self, logits: Tensor, target: Tensor) -> Tensor:
        return -margin(logits, target) if self.form == "margin" else picked(logits, target)

    def saliency(self, attributions: Tensor) -> Tensor:
        from scipy.ndimage import gaussian_filter  # type: ignore[import-untyped]  # slow to import

        size = attributions.square().mean(1).sqrt()
        blur = self.sigma * min(size.shape[1:]) / _SIDE
        blurred = gaussian_filter(size.cpu().numpy(), sigma=(0, blur, blur))
        return torch.from_numpy(np.asarray(blurred)).to(size)
