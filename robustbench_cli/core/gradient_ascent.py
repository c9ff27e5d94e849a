"""The inner maximisation of training: projected gradient ascent on a per-example loss.

Every defense that attacks its own model runs this loop.  Attacks take the same projected step, but
``evaluation.attack_loop`` drives them, because there every example may stop at a step of its own.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.model_modes import full_float32
from robustbench_cli.core.registry import Number
from robustbench_cli.core.threat import Threat

Model = Callable[[Tensor], Tensor]
"""Images (B, C, H, W) in [0, 1] to logits (B, classes); normalisation happens inside."""

Loss = Callable[[Tensor, Tensor], Tensor]
"""(logits (B, classes), target) to one number per example (B); higher is what the ascent wants.
The target is labels (B), label shares (B, classes) or other logits (B, classes)."""

Start = Literal["clean", "uniform", "gauss", "radial"]
TrainingStart = Literal[Start, "unclipped"]
"""The starts of an attack in training, which is not judged: ``unclipped`` may be outside [0, 1]."""
Steps = Annotated[int, Field(ge=1)]
StepSize = Annotated[Number, Field(gt=0)]


def check_reach(steps: int, step: float) -> None:
    """Refuse a step size that was surely meant in pixels, not as a fraction of eps.

    Raises:
        ValueError: ``steps`` steps of ``step`` x eps cannot reach the border of the ball.
    """
    if steps * step < 0.99 and step < 0.05:
        raise ValueError(
            f"{steps} steps of {step:g} x eps cannot reach the border of the ball; step is a "
            "fraction of eps (2/255 at eps 8/255 is step=1/4)"
        )


@dataclass(frozen=True, kw_only=True)
class Ascent:
    """The settings of an ascent: ``steps`` steps of size ``step`` x eps from ``start``."""

    steps: int
    step: float
    """As a fraction of eps, so a sweep over eps keeps the path: 2/255 at eps 8/255 is 1/4."""
    start: TrainingStart = "uniform"

    @property
    def exact_steps(self) -> int:
        """The number of first steps whose gradient is taken in full float32.

        A Gaussian start is 0.001 away from the clean image.  The gradient of a divergence from the
        clean prediction is so small there that rounding to bfloat16 or TF32 replaces it by noise:
        on the digits the signs of 63 % of the pixels are right, where guessing gives 50 %.  Steps
        are much larger than 0.001, so all further gradients may be rounded.
        """
        return 1 if self.start == "gauss" else 0

    def begin(self, x: Tensor, threat: Threat, noise: Noise) -> Tensor:
        """Return the starting points (B, C, H, W), inside the ball and the box [0, 1].

        With ``unclipped`` they are inside the ball only, and no adversarial images themselves.

        Args:
            x: clean images (B, C, H, W) in [0, 1].
        """
        return _STARTS[self.start](x, threat, noise.fork("start"))


class Iterate(NamedTuple):
    """One iterate of an ascent, and what the model answered there."""

    x_adv: Tensor
    """The images (B, C, H, W) in [0, 1]."""
    logits: Tensor
    """The model's logits (B, classes) at ``x_adv``, detached."""
    grad: Tensor
    """The gradient (B, C, H, W) of the summed loss at ``x_adv``."""
    step_index: int
    """The number of steps before this iterate: 0 at the start."""


NextIterate = Callable[[Iterate], Tensor]
"""From an iterate to the next images (B, C, H, W).  A defense that needs more than the projected
step passes one to ``ascend``: it may step differently, and it may note what it sees of each iterate
(GAIRAT counts the steps after which an example is still classified correctly, for instance)."""


def ascend(
    model: Model,
    loss: Loss,
    target: Tensor,
    x: Tensor,
    threat: Threat,
    noise: Noise,
    climb: Ascent,
    next_iterate: NextIterate | None = None,
) -> Tensor:
    """Maximise ``loss(model(x'), target)`` over the threat ball; return the last iterate.

    This is the inner problem of training: no example stops early and nothing is judged.  After a
    Gaussian start the first gradient is in full float32, whatever the model trains in.

    Args:
        target: what ``loss`` compares with.  Where that is the model's own answer to ``x``, take it
            from ``fixed_logits``.
        x: clean images (B, C, H, W) in [0, 1].
        threat: with a mask, bound to these images.
        noise: keyed by example, B of them; the random start draws from it.
        next_iterate: how an iterate follows from the one before; None: the projected step of
            steepest ascent of size ``climb.step`` x eps (Madry et al., 2018).

    Returns:
        Images (B, C, H, W) in [0, 1], detached.
    """

    def projected(here: Iterate) -> Tensor:
        return projected_step(here.x_adv, here.grad, x, threat, climb.step)

    start = climb.begin(x, threat, noise)
    return iterate(
        model, loss, target, start, climb.steps, next_iterate or projected, climb.exact_steps
    )


def fixed_logits(model: Model, x: Tensor) -> Tensor:
    """Return the logits (B, classes) at ``x`` in full float32, as the constant target of an ascent.

    Args:
        x: images (B, C, H, W) in [0, 1].
    """
    with full_float32(model), torch.no_grad():
        return model(x)


def iterate(
    model: Model,
    loss: Loss,
    target: Tensor,
    x_adv: Tensor,
    steps: int,
    next_iterate: NextIterate,
    exact_steps: int = 0,
) -> Tensor:
    """Take the gradient and go to the next iterate, ``steps`` times; return the last iterate.

    Args:
        x_adv: the first iterate (B, C, H, W).
        exact_steps: the number of first gradients that are taken in full float32.
    """
    for step_index in range(steps):
        with full_float32(model) if step_index < exact_steps else nullcontext():
            logits, grad = gradient(model, loss, target, x_adv)
        x_adv = next_iterate(Iterate(x_adv, logits, grad, step_index))
    return x_adv


def projected_step(x_adv: Tensor, grad: Tensor, x: Tensor, threat: Threat, step: float) -> Tensor:
    """Return ``x_adv`` moved by ``step`` x eps in the steepest direction and projected back.

    Args:
        x_adv: iterates (B, C, H, W).
        grad: the direction to climb (B, C, H, W), the loss's gradient as a rule.
        x: clean images (B, C, H, W) in [0, 1], the centres of the balls.
        step: a fraction of eps.
    """
    return threat.project(x_adv + step * threat.eps * threat.steepest(grad), x)


def gradient(model: Model, loss: Loss, target: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logits (B, classes) at ``x`` and the summed loss's gradient (B, C, H, W) there.

    The sum, never the mean: a mean divides small gradients towards zero with the batch size.  No
    gradient with respect to the weights is formed.

    Args:
        x: images (B, C, H, W).
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
    "unclipped": lambda x, threat, noise: threat.unclipped_start(x, noise),
}
