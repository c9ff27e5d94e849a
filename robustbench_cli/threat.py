"""What the adversary may do: a norm, a radius, and the geometry that comes with them.

Inputs live in [0, 1]; every method works on a batch (B, ...) and keeps examples independent.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import BeforeValidator
from torch import Tensor

from robustbench_cli.noise import Noise
from robustbench_cli.registry import Number, radius

Norm = Annotated[
    Literal["Linf", "L2"],
    BeforeValidator(lambda v: v.capitalize() if isinstance(v, str) else v),
]

_LARGEST = {"Linf": 1.0, "L2": 50.0}
"""No image in [0, 1] needs more; 8 or 128 were meant for pixels in [0, 255]."""


@dataclass(frozen=True)
class Threat:
    """An Lp ball of radius ``eps`` around each example, intersected with the box [0, 1]."""

    norm: Norm = "Linf"
    eps: Number = 8 / 255

    def __post_init__(self) -> None:
        if not self.eps > 0:
            raise ValueError(f"eps must be positive, got {self.eps:g}")
        if self.eps > _LARGEST[self.norm]:
            raise ValueError(
                f"eps {self.eps:g} looks written for pixels in [0, 255], but images here are in "
                f"[0, 1]; did you mean '{self.eps:g}/255'?"
            )

    def __str__(self) -> str:
        return f"{self.norm} {radius(self.eps)}"

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """How far each example went (B), in this norm."""
        order = float("inf") if self.norm == "Linf" else 2.0
        norms: Tensor = torch.linalg.vector_norm((x_adv - x).flatten(1), ord=order, dim=1)
        return norms

    def inside(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Whether each example (B) is finite, in the ball and in the box, up to rounding."""
        # Tolerances as in the evaluation contract: float32 x + delta overshoots by about 3e-8.
        slack = 1e-6 if self.norm == "Linf" else 1e-5 * self.eps
        flat = x_adv.flatten(1)
        boxed = ((flat >= 0) & (flat <= 1)).all(1)  # False for NaN, too
        return boxed & (self.distance(x_adv, x) <= self.eps + slack)

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Back to the ball, then to the box (clamping towards x cannot leave the ball)."""
        if self.norm == "Linf":
            low, high = (x - self.eps).clamp(min=0), (x + self.eps).clamp(max=1)
            return torch.minimum(torch.maximum(x_adv, low), high)
        delta = x_adv - x
        scale = (self.eps / _length(delta).clamp_min(1e-12)).clamp(max=1)
        return (x + delta * _over(scale, x)).clamp(0, 1)

    def random_start(self, x: Tensor, noise: Noise) -> Tensor:
        """Uniform in the ball (by volume), clipped to the box."""
        if self.norm == "Linf":
            return self.project(x + self.eps * (2 * noise.uniform(x) - 1), x)
        direction = self.steepest(noise.fork("direction").normal(x))
        share = noise.fork("share").uniform(x.flatten(1)[:, :1]).squeeze(1)
        return self.project(x + _over(self.eps * share ** (1 / x[0].numel()), x) * direction, x)

    def steepest(self, grad: Tensor) -> Tensor:
        """The unit step that increases a linear function with this gradient the most."""
        if self.norm == "Linf":
            return grad.sign()
        return grad / _over(_length(grad) + 1e-10, grad)


def _length(delta: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(delta.flatten(1), dim=1)
    return norms


def _over(values: Tensor, x: Tensor) -> Tensor:
    """One value per example, shaped to broadcast over ``x``."""
    return values.view(-1, *[1] * (x.ndim - 1))
