"""The threat model: a norm, a radius, perhaps a mask, and their geometry.

Images are (B, C, H, W) in [0, 1], radii and distances in the same units.  Every method works on a
batch and treats each example by itself; with a mask, changes stay within the pixels it leaves free.
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

LARGEST_RADIUS = {"Linf": 1.0, "L2": 50.0, "L1": 1000.0}
"""The largest radius per norm: a larger one was surely meant for pixels in [0, 255]."""

_ORDER = {"Linf": float("inf"), "L2": 2.0, "L1": 1.0}
"""The order p of the norm."""
_DUAL = {"Linf": 1.0, "L2": 2.0, "L1": float("inf")}
"""The order q of the dual norm, 1/p + 1/q = 1."""

SPARSE = 0.05
"""The fraction of the coordinates that a step moves under L1 (SLIDE, Tramer & Boneh, 2019,
https://arxiv.org/abs/1904.13000)."""


@dataclass(frozen=True)
class Threat:
    """An Lp ball of radius ``eps`` around each example, intersected with the box [0, 1].

    A mask is only named here; ``masks.bind_to_images`` returns the ``Masked`` threat for given
    images, whose methods keep to the pixels that are free.
    """

    norm: Norm = "Linf"
    eps: Number = 8 / 255
    mask: str = ""
    """The pixels that may change, as ``--mask`` takes them; empty: all of them."""

    def __post_init__(self) -> None:
        if self.norm not in LARGEST_RADIUS:
            raise UserError(f"norm must be {', '.join(LARGEST_RADIUS)}, got {self.norm!r}")
        if not isinstance(self.eps, Real):
            raise UserError(f"eps must be a number such as 8 / 255, got {self.eps!r}")
        if not self.eps > 0:
            raise UserError(f"eps must be positive, got {self.eps:g}")
        if self.eps > LARGEST_RADIUS[self.norm]:
            raise UserError(
                f"eps {self.eps:g} looks written for pixels in [0, 255], but images here are in "
                f"[0, 1]; did you mean '{self.eps:g}/255'?"
            )

    def __str__(self) -> str:
        return format_threat(self.norm, self.eps, self.mask)

    def bound(self, free: Tensor) -> "Masked":
        """Return the threat to B images of which only some pixels may change.

        Args:
            free: those pixels, bool (B, 1 or C, H, W).
        """
        return Masked(self.norm, self.eps, self.mask, free=free)

    def only(self, rows: Tensor | slice) -> "Threat":
        """Return the threat to the images ``rows`` (indices (B) or a slice) that it is bound to."""
        return self

    def joined(self, other: "Threat") -> "Threat":
        """Return the threat to these images, followed by those of ``other``."""
        return self

    def allowed(self, change: Tensor) -> Tensor:
        """Return ``change`` (B, ..., C, H, W) with zeros at the pixels that must stay."""
        return change

    def restored(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return ``x_adv`` (B, ..., C, H, W) with the pixels of ``x`` where none may change."""
        return x_adv

    def untouched(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return whether the pixels that must stay equal those of ``x`` exactly (B, bool)."""
        return torch.ones(len(x), dtype=torch.bool, device=x.device)

    def dimensions(self, x: Tensor) -> int | Tensor:
        """Return how many entries of each image may change: one number for all, or (B)."""
        return x[0].numel()

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return the distance of each example from the clean one (B), in this norm."""
        norms: Tensor = torch.linalg.vector_norm(
            (x_adv - x).flatten(1), ord=_ORDER[self.norm], dim=1
        )
        return norms

    def radius_in(self, norm: Norm, pixels: int) -> float:
        """Return the radius in ``norm`` of the smallest ball that contains this one.

        Args:
            pixels: the number of entries of an image, C H W.

        Raises:
            UserError: there is a mask.
        """
        return float(self.eps * pixels ** max(0.0, 1 / _ORDER[norm] - 1 / _ORDER[self.norm]))

    def dual(self, grad: Tensor) -> Tensor:
        """Return the dual norm of ``grad`` (..., D) over the last axis (...).

        It is the largest slope of a linear function with that gradient, per unit of distance.
        """
        norms: Tensor = torch.linalg.vector_norm(grad, ord=_DUAL[self.norm], dim=-1)
        return norms

    def inside(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return whether each example is finite, in the ball and in the box, up to rounding (B).

        Pixels that must not change are held to that exactly.
        """
        # float32 rounds x + delta by up to about 3e-8 past the border of the ball.
        slack = 1e-6 if self.norm == "Linf" else 1e-5 * self.eps
        flat = x_adv.flatten(1)
        boxed = ((flat >= 0) & (flat <= 1)).all(1)  # False for NaN, too
        near = self.distance(x_adv, x) <= self.eps + slack
        return boxed & near & self.untouched(x_adv, x)

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return the images (B, C, H, W) projected to the ball and the box around ``x``.

        First to the ball, then to the box: clamping towards [0, 1], where x is, cannot leave the
        ball.  Under L1 it is the nearest point of both at once (Croce & Hein, 2021,
        https://arxiv.org/abs/2103.01208): attacks that shrink along the ray are far too weak.
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
        """Return images (B, C, H, W) to store: those ``inside`` as they are, others projected."""
        return torch.where(over(self.inside(x_adv, x), x), x_adv, self.project(x_adv, x))

    def random_start(self, x: Tensor, noise: Noise) -> Tensor:
        """Return images like ``x`` (B, C, H, W), uniform in the ball (by volume) and in the box."""
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
        """Return images like ``x`` (B, C, H, W) in a random direction, inside the box.

        The length is uniform in [0, eps].  By volume almost all of an L2 ball of 3,072 dimensions
        lies at its border; here half of the starts are within half the radius.
        """
        share = noise.fork("share").uniform(x.flatten(1)[:, :1]).squeeze(1)
        step = over(self.eps * share, x) * self.direction(x, noise.fork("direction"))
        return self.project(x + step, x)

    def direction(self, x: Tensor, noise: Noise) -> Tensor:
        """Return a random change of each example, of length one in this norm (B, C, H, W)."""
        t = self.allowed(2 * noise.uniform(x) - 1 if self.norm == "Linf" else noise.normal(x))
        return t / over(self.distance(t, torch.zeros_like(t)).clamp_min(1e-12), t)

    def steepest(self, grad: Tensor) -> Tensor:
        """Return the unit steps (B, C, H, W) that increase a linear function the most.

        Under Linf that is the gradient's sign, under L2 the normalised gradient.  Under L1 it would
        be a single coordinate; here the fraction ``SPARSE`` of them move together.

        Args:
            grad: the function's gradient (B, C, H, W).
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
    """The pixels that may change, bool (B, 1 or C, H, W)."""

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
        """Return ``free`` shaped to broadcast over (B, ..., C, H, W)."""
        between = like.ndim - self.free.ndim
        return self.free.view(len(self.free), *[1] * between, *self.free.shape[1:])


def over(values: Tensor, x: Tensor) -> Tensor:
    """Return one value per example (B), shaped (B, 1, ..., 1) to broadcast over ``x`` (B, ...)."""
    return values.view(-1, *[1] * (x.ndim - 1))


def _length(delta: Tensor) -> Tensor:
    """The L2 norm of each example (B)."""
    norms: Tensor = torch.linalg.vector_norm(delta.flatten(1), dim=1)
    return norms


def onto_l1(x_adv: Tensor, x: Tensor, eps: float | Tensor) -> Tensor:
    """Return the nearest points (B, C, H, W) in the box that are at most ``eps`` from ``x`` in L1.

    Their change is sign * min(max(|delta_i| - t, 0), room_i), where room_i is the distance of x_i
    from the border of [0, 1], for the smallest t >= 0 with a sum of at most eps.  The sum falls
    with t, so bisection finds it (Croce & Hein, 2021, https://arxiv.org/abs/2103.01208).

    Args:
        eps: one radius, or one per example (B).
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
