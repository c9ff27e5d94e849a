"""Perceptual ball attack (Elliott, Law and Russell, CVPR 2021), https://arxiv.org/abs/1912.09405.

The counterfactual of ``explain perceptual-ball``, judged like any other adversarial image.
"""

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from robustbench_cli.attacks import ATTACKS, ExternalAttack, Task
from robustbench_cli.core.gradient_ascent import Steps
from robustbench_cli.core.losses import margin
from robustbench_cli.core.registry import Number
from robustbench_cli.explanations._perceptual_ball import (
    RELUS,
    BallObjective,
    BallSettings,
    feature_distances,
    tap_names,
)


@ATTACKS.register("perceptual", aliases=("perceptual-ball",), pattern=r"perceptual-?(?P<steps>\d+)")
@dataclass(frozen=True, kw_only=True)
class Perceptual(ExternalAttack):
    """L-BFGS-B on (m + kappa)^2 + s MSE(x', x) + gamma sum of MSE(f(x'), f(x)) over inner layers f.

    m is the margin of the true class; the image stays in [0, 1], for which the authors' L-BFGS,
    without bounds or line search, is not made.  It looks for an image that is
    wrong by kappa and near in pixels and features, so its distances are no shortest ones; with
    gamma 0 and a small kappa they nearly are.  A model without ReLUs has no layers to compare.
    The paper's gamma, 10000, is of VGG-19's features; here it counts in units of the image's own.
    """

    kappa: Annotated[Number, Field(ge=0)] = 2.0
    """The logit margin by which the image is to be misclassified; the paper's v is -2."""
    s: Annotated[Number, Field(ge=0)] = 1.0
    """Weight of the distance in pixels."""
    gamma: Annotated[Number, Field(ge=0)] = 10.0
    """Weight of the distances in features."""
    relative: bool = True
    """Count gamma in units at which both distances weigh the same at x + 0.01 N(0, 1)."""
    taps: str = RELUS
    """Layers whose outputs are compared: names or patterns, parted by commas; relus: all modules
    nn.ReLU."""
    steps: Steps = 100
    """Most iterations of L-BFGS."""

    norms: ClassVar[tuple[str, ...]] = ("L2",)
    reports: ClassVar[tuple[str, ...]] = ("feature_distance",)

    @property
    def planned_passes(self) -> int:
        return 2 * self.steps

    @property
    def minimal(self) -> bool:
        return True

    def craft(self, model: Any, task: Task) -> Tensor:
        taps = tap_names(model, self.taps, needed=False) if self.gamma else ()
        noise = task.noise.fork("unit").normal(task.x)
        settings = BallSettings(
            v=-self.kappa,
            s=self.s,
            gamma=self.gamma,
            relative=self.relative,
            steps=self.steps,
            rate=1.0,
            box=True,
        )
        found = []
        for x, y, drawn in zip(task.x, task.y, noise, strict=True):
            of = x[None], partial(_lead, y=y[None])
            with BallObjective.opened(model, *of, settings, taps, drawn[None]) as ball:
                found.append(ball.descend(partial(_is_wrong, y=y[None])).x)
        return torch.cat(found)

    def report(self, model: Any, x_adv: Tensor, task: Task) -> Tensor:
        taps = tap_names(model, self.taps, needed=False)
        return feature_distances(model, task.x, x_adv, taps)[:, None]


def _lead(logits: Tensor, y: Tensor) -> Tensor:
    return -margin(logits, y)


def _is_wrong(logits: Tensor, y: Tensor) -> bool:
    return bool((margin(logits, y) > 0).all())
