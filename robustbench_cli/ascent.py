"""The one loop: maximise a per-example loss inside a threat ball.

Attacks and the inner problems of defenses are this loop with another loss, start or step.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from robustbench_cli.noise import Noise
from robustbench_cli.registry import Number
from robustbench_cli.threat import Threat

Model = Callable[[Tensor], Tensor]
"""Images (B, C, H, W) in [0, 1] to logits (B, classes); normalisation happens inside."""

Loss = Callable[[Tensor, Tensor], Tensor]
"""(logits, target) to one number per example; the target is labels or other logits."""

Transform = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(gradient, state) to (direction, new state), each shaped like the images."""

Start = Literal["clean", "uniform", "gauss"]
Steps = Annotated[int, Field(ge=1)]
StepSize = Annotated[Number, Field(gt=0)]


class Crafted(NamedTuple):
    """What an attack proposes: images, and at which step each was first misclassified.

    ``step`` (B) counts gradient steps taken; 0 is the start itself, -1 means never (or unknown).
    """

    x: Tensor
    step: Tensor


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
    *,
    transform: Transform = lambda grad, state: (grad, state),
) -> Tensor:
    """Projected steepest ascent on ``loss(model(x'), target)``; return the last iterate.

    This is the inner problem of training: no example stops early, nothing is judged.
    """
    x_adv, state = climb.begin(x, threat, noise), torch.zeros_like(x)
    for _ in range(climb.steps):
        _, grad = gradient(model, loss, target, x_adv)
        move, state = transform(grad, state)
        x_adv = threat.project(x_adv + climb.step * threat.eps * threat.steepest(move), x)
    return x_adv


def hunt(
    model: Model,
    loss: Loss,
    y: Tensor,
    x: Tensor,
    threat: Threat,
    noise: Noise,
    climb: Ascent,
    *,
    restarts: int = 1,
    last_iterate: bool = False,
    transform: Transform = lambda grad, state: (grad, state),
) -> Crafted:
    """The same ascent as an attack: an example is done at its first misclassified iterate.

    The logits of the gradient pass tell success, so that costs nothing; finished examples leave
    the batch.  Each restart works on what the ones before it left.  An example that never falls
    keeps the iterate with the highest final loss.  With ``last_iterate`` only the end of each
    restart counts, as in the evaluation scripts of several papers.
    """
    best, found = x.clone(), torch.full_like(y, -1)
    highest = torch.full(y.shape, -torch.inf, device=x.device, dtype=torch.float64)
    for restart in range(restarts):
        left = (found < 0).nonzero().squeeze(1)
        if not len(left):
            break
        source = noise.only(left).fork(f"restart {restart}")
        begun, y_left, x_left = climb.begin(x[left], threat, source), y[left], x[left]
        run = _hunt_once(model, loss, y_left, x_left, begun, threat, climb, last_iterate, transform)
        # Misclassified first, then the loss: a broken start never loses to a higher loss.
        better = (run.step >= 0) | (run.loss > highest[left])
        rows = left[better]
        best[rows], found[rows], highest[rows] = run.x[better], run.step[better], run.loss[better]
    return Crafted(best, found)


class _Climbed(NamedTuple):
    x: Tensor
    step: Tensor
    loss: Tensor


def _hunt_once(
    model: Model,
    loss: Loss,
    y: Tensor,
    x: Tensor,
    x_adv: Tensor,
    threat: Threat,
    climb: Ascent,
    last_iterate: bool,
    transform: Transform,
) -> _Climbed:
    """One restart; examples leave the working set as they fall."""
    result = _Climbed(x_adv.clone(), torch.full_like(y, -1), y.new_zeros(len(y)).double())
    rows, state = torch.arange(len(y), device=y.device), torch.zeros_like(x)
    for taken in range(climb.steps):
        logits, grad = gradient(model, loss, y, x_adv)
        if not last_iterate:
            fell = logits.argmax(1) != y
            if fell.any():
                result.x[rows[fell]], result.step[rows[fell]] = x_adv[fell], taken
                stay = ~fell
                rows, y, x, x_adv = rows[stay], y[stay], x[stay], x_adv[stay]
                grad, state = grad[stay], state[stay]
                if not len(rows):
                    return result
        move, state = transform(grad, state)
        x_adv = threat.project(x_adv + climb.step * threat.eps * threat.steepest(move), x)
    with torch.no_grad():
        logits = model(x_adv)
        result.x[rows], result.loss[rows] = x_adv, loss(logits, y).double()
        result.step[rows] = torch.where(logits.argmax(1) != y, climb.steps, -1)
    return result


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
}
