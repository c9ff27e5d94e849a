"""What the adversary may do: a norm, a radius, perhaps a mask, and their geometry.

Inputs live in [0, 1]; every method works on a batch (B, ...) and keeps examples independent.
"""

from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Annotated, Literal

import torch
from pydantic import BeforeValidator
from torch import Tensor

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Number
from robustbench_cli.core.threat_text import format_threat

Norm = Annotated[
    Literal["Linf", "L2", "L1"],
    BeforeValidator(lambda v: v.capitalize() if isinstance(v, str) else v),
]

_LARGEST = {"Linf": 1.0, "L2": 50.0, "L1": 1000.0}
"""No image in [0, 1] needs more; 8 or 128 were meant for pixels in [0, 255]."""

_ORDER = {"Linf": float("inf"), "L2": 2.0, "L1": 1.0}
_DUAL = {"Linf": 1.0, "L2": 2.0, "L1": float("inf")}

SPARSE = 0.05
"""Share of the coordinates that a step moves under L1 (SLIDE, Tramer & Boneh, 2019,
https://arxiv.org/abs/1904.13000)."""


@dataclass(frozen=True)
class Threat:
    """An Lp ball of radius ``eps`` around each example, intersected with the box [0, 1].

    A threat with a ``mask`` says so only; ``masks.bound`` binds it to images, and then its
    methods leave alone what they must.
    """

    norm: Norm = "Linf"
    eps: Number = 8 / 255
    mask: str = ""
    """Which pixels may change, as ``--mask`` takes it; nothing: all of them."""

    def __post_init__(self) -> None:
        if self.norm not in _LARGEST:
            raise UserError(f"norm must be {', '.join(_LARGEST)}, got {self.norm!r}")
        if not isinstance(self.eps, Real):
            raise UserError(f"eps must be a number such as 8 / 255, got {self.eps!r}")
        if not self.eps > 0:
            raise UserError(f"eps must be positive, got {self.eps:g}")
        if self.eps > _LARGEST[self.norm]:
            raise UserError(
                f"eps {self.eps:g} looks written for pixels in [0, 255], but images here are in "
                f"[0, 1]; did you mean '{self.eps:g}/255'?"
            )

    def __str__(self) -> str:
        return format_threat(self.norm, self.eps, self.mask)

    def bound(self, free: Tensor) -> "Masked":
        """The same for these images, of which only ``free`` pixels may change.

        Args:
            free: bool (B, 1 or C, H, W).
        """
        return Masked(self.norm, self.eps, self.mask, free=free)

    def only(self, rows: Tensor | slice) -> "Threat":
        """The threat to some of the images that it is bound to."""
        return self

    def joined(self, other: "Threat") -> "Threat":
        """The threat to these images, then to those."""
        return self

    def allowed(self, change: Tensor) -> Tensor:
        """``change`` (B, ..., C, H, W) with zeros where nothing may change."""
        return change

    def restored(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """``x_adv`` (B, ..., C, H, W) with the pixels of ``x`` where nothing may change."""
        return x_adv

    def untouched(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Whether each example (B) has the very pixels of ``x`` where nothing may change."""
        return torch.ones(len(x), dtype=torch.bool, device=x.device)

    def dimensions(self, x: Tensor) -> int | Tensor:
        """How many numbers of each image may change: of all alike, or (B)."""
        return x[0].numel()

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """How far each example went (B), in this norm."""
        norms: Tensor = torch.linalg.vector_norm(
            (x_adv - x).flatten(1), ord=_ORDER[self.norm], dim=1
        )
        return norms

    def radius_in(self, norm: Norm, pixels: int) -> float:
        """The radius in ``norm`` of the smallest ball that holds this one.

        Args:
            pixels: of an image, over all channels.
        """
        return float(self.eps * pixels ** max(0.0, 1 / _ORDER[norm] - 1 / _ORDER[self.norm]))

    def dual(self, grad: Tensor) -> Tensor:
        """The dual norm (B, ...) over the last axis: how fast a linear function can change."""
        norms: Tensor = torch.linalg.vector_norm(grad, ord=_DUAL[self.norm], dim=-1)
        return norms

    def inside(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Whether each example (B) is finite, in the ball and in the box, up to rounding.

        Pixels that must not change are held to that exactly.
        """
        # Tolerances as in the evaluation contract: float32 x + delta overshoots by about 3e-8.
        slack = 1e-6 if self.norm == "Linf" else 1e-5 * self.eps
        flat = x_adv.flatten(1)
        boxed = ((flat >= 0) & (flat <= 1)).all(1)  # False for NaN, too
        near = self.distance(x_adv, x) <= self.eps + slack
        return boxed & near & self.untouched(x_adv, x)

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Back to the ball, then to the box (clamping towards x cannot leave the ball).

        Under L1 this is the nearest point of both at once (Croce & Hein, 2021,
        https://arxiv.org/abs/2103.01208): shrinking along the ray would be far too weak.
        """
        x_adv = self.restored(x_adv, x)
        if self.norm == "Linf":
            low, high = (x - self.eps).clamp(min=0), (x + self.eps).clamp(max=1)
            return x_adv.clamp(low, high)
        delta = x_adv - x
        if self.norm == "L1":
            return onto_l1(x_adv, x, self.eps)
        scale = (self.eps / _length(delta).clamp_min(1e-12)).clamp(max=1)
        return (x + delta * over(scale, x)).clamp(0, 1)

    def stored(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """The image as it is kept: as it is where it is allowed, else brought back."""
        return torch.where(over(self.inside(x_adv, x), x), x_adv, self.project(x_adv, x))

    def random_start(self, x: Tensor, noise: Noise) -> Tensor:
        """Uniform in the ball (by volume), clipped to the box."""
        if self.norm == "Linf":
            return self.project(x + self.eps * (2 * noise.uniform(x) - 1), x)
        share = noise.fork("share").uniform(x.flatten(1)[:, :1]).squeeze(1)
        size = over(self.eps * share ** (1 / self.dimensions(x)), x)
        if self.norm == "L2":
            direction = self.steepest(noise.fork("direction").normal(x))
            return self.project(x + size * direction, x)
        # Exponential magnitudes with random signs, scaled to the sphere, are uniform on it.
        sign = (noise.fork("sign").uniform(x) < 0.5).to(x) * 2 - 1
        direction = self.allowed(sign * -torch.log1p(-noise.fork("direction").uniform(x)))
        return self.project(x + size * direction / over(direction.abs().flatten(1).sum(1), x), x)

    def radial_start(self, x: Tensor, noise: Noise) -> Tensor:
        """A random direction and a length uniform up to ``eps``, clipped to the box.

        By volume almost all of an L2 ball of 3,072 dimensions lies at its border; here half of the
        starts are in the inner half.
        """
        share = noise.fork("share").uniform(x.flatten(1)[:, :1]).squeeze(1)
        step = over(self.eps * share, x) * self.direction(x, noise.fork("direction"))
        return self.project(x + step, x)

    def direction(self, x: Tensor, noise: Noise) -> Tensor:
        """A random change of each example in ``x`` whose length in this norm is one."""
        t = self.allowed(2 * noise.uniform(x) - 1 if self.norm == "Linf" else noise.normal(x))
        return t / over(self.distance(t, torch.zeros_like(t)).clamp_min(1e-12), t)

    def steepest(self, grad: Tensor) -> Tensor:
        """The unit step that increases a linear function with this gradient the most.

        Under L1 that would be a single coordinate; ``SPARSE`` of them move together instead.
        """
        grad = self.allowed(grad)
        if self.norm == "Linf":
            return grad.sign()
        if self.norm == "L2":
            return grad / over(_length(grad) + 1e-10, grad)
        flat = grad.abs().flatten(1)
        kept = max(1, round(SPARSE * flat.shape[1]))
        least = flat.topk(kept, dim=1).values[:, -1:]
        signs = torch.where(flat >= least, grad.flatten(1).sign(), 0)
        return (signs / signs.abs().sum(1, keepdim=True).clamp_min(1)).view_as(grad)


@dataclass(frozen=True)
class Masked(Threat):
    """A threat bound to images, of which only some pixels may change."""

    free: Tensor = field(kw_only=True, compare=False, repr=False)
    """Which, bool (B, 1 or C, H, W)."""

    def bound(self, free: Tensor) -> "Masked":
        return replace(self, free=self.free & free)

    def only(self, rows: Tensor | slice) -> Threat:
        return replace(self, free=self.free[rows])

    def joined(self, other: Threat) -> Threat:
        assert isinstance(other, Masked)
        return replace(self, free=torch.cat([self.free, other.free]))

    def allowed(self, change: Tensor) -> Tensor:
        return torch.where(self._spread(change), change, 0)

    def restored(self, x_adv: Tensor, x: Tensor) -> Tensor:
        clean = x.view(len(x), *[1] * (x_adv.ndim - x.ndim), *x.shape[1:])
        return torch.where(self._spread(x_adv), x_adv, clean)

    def untouched(self, x_adv: Tensor, x: Tensor) -> Tensor:
        return (self.free | (x_adv == x)).flatten(1).all(1)

    def dimensions(self, x: Tensor) -> int | Tensor:
        return self.free.expand_as(x).flatten(1).sum(1).clamp_min(1).to(x)

    def radius_in(self, norm: Norm, pixels: int) -> float:
        raise UserError(
            f"this moves images by the size of the ball alone, which no mask restricts: leave "
            f"--mask {self.mask} out"
        )

    def _spread(self, like: Tensor) -> Tensor:
        """``free`` shaped to broadcast over (B, ..., C, H, W)."""
        between = like.ndim - self.free.ndim
        return self.free.view(len(self.free), *[1] * between, *self.free.shape[1:])


def over(values: Tensor, x: Tensor) -> Tensor:
    """One value per example, shaped to broadcast over ``x``."""
    return values.view(-1, *[1] * (x.ndim - 1))


def _length(delta: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(delta.flatten(1), dim=1)
    return norms


def onto_l1(x_adv: Tensor, x: Tensor, eps: float | Tensor) -> Tensor:
    """The nearest point that is in the box and at most ``eps`` (one, or one each) from ``x`` in L1.

    Its change is sign * min(max(|delta_i| - t, 0), room_i) for the smallest t >= 0 that fits; the
    sum is monotone in t, so bisection finds it.
    """
    delta = (x_adv - x).flatten(1)
    size = delta.abs()
    room = torch.where(delta > 0, 1 - x.flatten(1), x.flatten(1))
    low, high = torch.zeros_like(size[:, 0]), size.amax(1)
    for _ in range(32):  # halvings until the interval is below float32's resolution
        middle = (low + high) / 2
        fits = torch.minimum((size - middle[:, None]).clamp_min(0), room).sum(1) <= eps
        low, high = torch.where(fits, low, middle), torch.where(fits, middle, high)
    free = torch.minimum(size, room).sum(1) <= eps
    shift = torch.where(free, 0, high)[:, None]
    z = delta.sign() * torch.minimum((size - shift).clamp_min(0), room)
    return (x + z.view_as(x)).clamp(0, 1)
