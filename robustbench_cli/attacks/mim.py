"""Momentum iterative FGSM, MI-FGSM (Dong et al., 2018), https://arxiv.org/abs/1710.06081."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor

from robustbench_cli.ascent import Crafted, Model, Start, Steps, hunt
from robustbench_cli.attacks import ATTACKS, Iterated
from robustbench_cli.losses import cross_entropy
from robustbench_cli.noise import Noise
from robustbench_cli.registry import Number
from robustbench_cli.threat import Threat


@ATTACKS.register("mim", aliases=("mi-fgsm",), pattern=r"(?:mim|mi-fgsm)-?(?P<steps>\d+)")
@dataclass(frozen=True, kw_only=True)
class MIM(Iterated):
    """Iterated FGSM on a running sum of gradients, each divided by its mean magnitude.

    ``step=0`` (the default) is the paper's eps / steps; equation 6 of the paper.
    """

    steps: Steps = 10
    step: Annotated[Number, Field(ge=0)] = 0.0
    start: Start = "clean"
    decay: Annotated[Number, Field(ge=0)] = 1.0
    """The momentum's decay factor, mu."""

    def __post_init__(self) -> None:
        if self.step == 0:
            object.__setattr__(self, "step", 1 / self.steps)
        super().__post_init__()

    def __call__(self, model: Model, x: Tensor, y: Tensor, threat: Threat, noise: Noise) -> Crafted:
        def momentum(grad: Tensor, velocity: Tensor) -> tuple[Tensor, Tensor]:
            size = grad.abs().flatten(1).mean(1).view(-1, *[1] * (grad.ndim - 1))
            # The 1e-12 matters: without it one all-zero gradient makes the sum NaN for good.
            velocity = self.decay * velocity + grad / (size + 1e-12)
            return velocity, velocity

        return hunt(
            model,
            cross_entropy,
            y,
            x,
            threat,
            noise,
            self.climb,
            restarts=self.restarts,
            last_iterate=self.last_iterate,
            transform=momentum,
        )
