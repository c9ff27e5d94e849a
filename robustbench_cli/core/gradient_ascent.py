"""The inner loop of training: maximise a per-example loss inside a threat ball.

Attacks take the same steps, but ``engine.slots`` drives them, example by example.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Number
from robustbench_cli.core.threat import Threat

Model = Callable[[Tensor], Tensor]
"""Images (B, C, H, W) in [0, 1] to logits (B, classes); normalisation happens inside."""

Loss = Callable[[Tensor, Tensor], Tensor]
"""(logits, target) to one number per example; the target is labels or other logits."""

Start = Literal["clean", "uniform", "gauss", "radial"]
Steps = Annotated[int, Field(ge=1)]
StepSize = Annotated[Number, Field(gt=0)]


def check_reach(steps: int, step: float) -> None:
    """Raise ``ValueError`` for a step that was surely meant in pixels, not as a share of eps."""
    if steps * step < 0.99 and step < 0.05:
        raise ValueError(
            f"{steps} steps of {step:g} x eps cannot reach the border of the ball; step is a "
            "fraction of eps (2/255 at eps 8/255 is step=1/4)"
        )


@dataclass(frozen=True, kw_only=True)
class Ascent:
    """How to climb: ``steps`` of size ``step`` x eps from ``start``."""

    steps: int
    step: float
    """As a fraction of eps, so a sweep over eps keeps the path: 2/255 at eps 8/255 is 1/4."""
    start: Start = "uniform"

    def begin(self, x: Tensor, threat: Threat, noise: Noise) -> Tensor:
        """The starting points, inside the ball and the box."""
        return _STARTS[self.start](x, threat, noise.fork("start"))


def ascend(
    model: Model,
    loss: Loss,
    target: Tensor,
    x: Tensor,
    threat: Threat,
    noise: Noise,
    climb: Ascent,
) -> Tensor:
    """Projected steepest ascent on ``loss(model(x'), target)``; return the last iterate.

    This is the inner problem of training: no example stops early, nothing is judged.
    """
    x_adv = climb.begin(x, threat, noise)
    for _ in range(climb.steps):
        _, grad = gradient(model, loss, target, x_adv)
        x_adv = threat.project(x_adv + climb.step * threat.eps * threat.steepest(grad), x)
    return x_adv


def gradient(model: Model, loss: Loss, target: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Logits at ``x`` and the gradient of the summed loss there; no weight gradient is formed.

    The sum, never the mean: a mean divides small gradients towards zero with the batch size.
    """
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        logits = model(x)
        (grad,) = torch.autograd.grad(loss(logits, target).sum(), x)
    return logits.detach(), grad


_STARTS: dict[str, Callable[[Tensor, Threat, Noise], Tensor]] = {
    "clean": lambda x, _threat, _noise: x.clone(),
    "uniform": lambda x, threat, noise: threat.random_start(x, noise),
    "gauss": lambda x, threat, noise: threat.project(x + 0.001 * noise.normal(x), x),
    "radial": lambda x, threat, noise: threat.radial_start(x, noise),
}
