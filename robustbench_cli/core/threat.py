"""The threat model: a norm, a size, perhaps a mask; what they mean is a geometry's.

Images are (B, C, H, W) in [0, 1].  Every method works on a batch and treats each example by itself;
with a mask, changes stay within the pixels it leaves free.
"""

from dataclasses import dataclass, field, replace
from functools import cached_property
from numbers import Real
from typing import Annotated

import torch
from pydantic import BeforeValidator
from torch import Tensor

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.geometries import GEOMETRIES, Ball, Geometry, geometry, over
from robustbench_cli.core.geometries.l1 import onto_l1
from robustbench_cli.core.registry import Number
from robustbench_cli.core.threat_text import format_threat

__all__ = ["Masked", "Norm", "Threat", "onto_l1", "over"]


def _registered(value: object) -> object:
    """Return the norm that is meant, whatever its capitals."""
    known = {name.lower(): name for name in GEOMETRIES.names()}
    found = known.get(str(value).lower(), str(value))
    try:
        geometry(found)
    except UserError as error:  # the caller says which setting it is
        raise ValueError(str(error).removeprefix("norm ")) from None
    return found


Norm = Annotated[str, BeforeValidator(_registered)]
"""A registered geometry's name."""


@dataclass(frozen=True)
class Threat:
    """The images within ``eps`` of each example in the norm's geometry, and in the box [0, 1].

    For Linf, L2 and L1 that is a ball in units of pixels in [0, 1].  A mask is only named here;
    ``masks.bind_to_images`` returns the ``Masked`` threat for given images, whose methods keep to
    the pixels that are free.
    """

    norm: Norm = "Linf"
    eps: Number = 8 / 255
    mask: str = ""
    """The pixels that may change, as ``--mask`` takes them; empty: all of them."""

    def __post_init__(self) -> None:
        kind = geometry(self.norm)
        if not isinstance(self.eps, Real):
            raise UserError(f"eps must be a number such as 8 / 255, got {self.eps!r}")
        kind(self.eps)
        if self.mask and not kind.maskable:
            raise UserError(
                f"a mask holds pixels fast, and {self.norm} moves them all: leave --mask out"
            )

    @cached_property
    def geometry(self) -> Geometry:
        """What the norm means, at this size."""
        return geometry(self.norm)(self.eps)

    @property
    def is_ball(self) -> bool:
        """True if pixels move by amounts, so that steps and directions have a length."""
        return isinstance(self.geometry, Ball)

    @property
    def probed(self) -> "Threat":
        """The ball in which the model's own properties are looked at: itself if it is a ball."""
        if self.is_ball:
            return self
        norm, eps = self.geometry.probed_in
        return replace(self, norm=norm, eps=eps)

    def shrunk(self, share: float) -> "Threat":
        """Return the threat with its border left out, where it has one; ``share`` of it stays."""
        return replace(self, eps=self.geometry.shrunk(share))

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
        return self.geometry.distance(x_adv, x)

    def radius_in(self, norm: Norm, pixels: int) -> float:
        """Return the radius in ``norm`` of the smallest ball that contains this one.

        Args:
            pixels: the number of entries of an image, C H W.

        Raises:
            UserError: there is a mask, or no such ball.
        """
        return self.geometry.radius_in(norm, pixels)

    def diameter(self, shape: tuple[int, ...]) -> float:
        """Return the size at which every image (C, H, W) is allowed, as far as one may be."""
        return self.geometry.diameter(shape)

    def dual(self, grad: Tensor) -> Tensor:
        """Return the dual norm of ``grad`` (..., D) over the last axis (...).

        It is the largest slope of a linear function with that gradient, per unit of distance.
        """
        return self.geometry.dual(grad)

    def inside(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return whether each example is finite, near enough and in the box, up to rounding (B).

        Pixels that must not change are held to that exactly.
        """
        flat = x_adv.flatten(1)  # aminmax would take five times as long
        boxed = (flat.amin(1) >= 0) & (flat.amax(1) <= 1)  # False for NaN, too
        return boxed & self.geometry.holds(self.distance(x_adv, x))

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return the images (B, C, H, W) projected to what is allowed around ``x``.

        For L2 first to the ball, then to the box: clamping towards [0, 1], where x is, cannot leave
        the ball.  Under L1 it is the nearest point of both at once.
        """
        return self.geometry.project(self.restored(x_adv, x), x)

    def stored(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return images (B, C, H, W) to store: those ``inside`` as they are, others projected."""
        return torch.where(over(self.inside(x_adv, x), x), x_adv, self.project(x_adv, x))

    def random_start(self, x: Tensor, noise: Noise) -> Tensor:
        """Return random allowed images like ``x`` (B, C, H, W); in a ball uniform by volume."""
        return self.project(self.geometry.drawn(x, noise, self), x)

    def unclipped_start(self, x: Tensor, noise: Noise) -> Tensor:
        """Return what ``random_start`` projects (B, C, H, W): it may lie outside the box [0, 1]."""
        return self.restored(self.geometry.drawn(x, noise, self), x)

    def corner(self, x: Tensor, slope: Tensor) -> Tensor:
        """Return the allowed images (B, C, H, W) at which linear functions are largest.

        In a ball that is a step of length ``eps`` in the steepest direction.

        Args:
            slope: the gradients of the functions (B, C, H, W).
        """
        return self.project(self.geometry.corner(x, slope, self), x)

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
        return self.geometry.direction(x, noise, self)

    def steepest(self, grad: Tensor) -> Tensor:
        """Return the unit steps (B, C, H, W) that increase a linear function the most.

        Under Linf that is the gradient's sign, under L2 the normalised gradient.  Under L1 it would
        be a single coordinate; here a twentieth of them move together.

        Args:
            grad: the function's gradient (B, C, H, W).
        """
        return self.geometry.steepest(self.allowed(grad))


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

    def inside(self, x_adv: Tensor, x: Tensor) -> Tensor:
        return super().inside(x_adv, x) & self.untouched(x_adv, x)

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
