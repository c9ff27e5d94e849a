"""Geometries of threats: the images that an adversary may make of a clean one; one file each.

A geometry is a frozen dataclass with the size ``eps``, registered under its norm.  ``Threat`` adds
what all of them share: the box [0, 1], masks, records.  A ``Ball`` is one in which pixels move by
amounts, so that gradients, directions and steps have a length; elsewhere they have none, and what
needs them is refused.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeVar

import torch
from torch import Tensor

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Registry

_Radius = TypeVar("_Radius", float, Tensor)
"""A radius, or one per example."""


class Room(Protocol):
    """The pixels of some images that may change: those that a mask leaves free, else all."""

    def allowed(self, change: Tensor) -> Tensor:
        """Return ``change`` (B, ..., C, H, W) with zeros at the pixels that must stay."""

    def dimensions(self, x: Tensor) -> int | Tensor:
        """Return how many entries of each image may change: one number for all, or (B)."""


@dataclass(frozen=True)
class Geometry(ABC):
    """The images within ``eps`` of a clean one, whatever the box and a mask leave of them."""

    eps: float
    """The size, in the unit of the geometry."""

    usual: ClassVar[float]
    """The size where neither the user nor the data set says one."""
    probed_in: ClassVar[tuple[str, float]] = ("Linf", 8 / 255)
    """The norm and radius of the ball in which the model's own properties are looked at."""
    maskable: ClassVar[bool] = True
    """True if it can be held to some pixels of the image."""

    @property
    def norm(self) -> str:
        """The name under which it is registered."""
        return GEOMETRIES.name_of(self)

    def fitting(self, shape: tuple[int, ...]) -> None:
        """Refuse a size that makes no sense for images of this shape (C, H, W).

        Raises:
            UserError: with the largest size that does.
        """

    @abstractmethod
    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return the smallest size (B) at which each image is allowed; infinite if none is."""

    def holds(self, distance: Tensor) -> Tensor:
        """Return whether images at these distances (B) are allowed, up to rounding (B, bool)."""
        return distance <= self.eps * (1 + 1e-6)

    @abstractmethod
    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return allowed images (B, C, H, W) in the box, near ``x_adv``."""

    @abstractmethod
    def drawn(self, x: Tensor, noise: Noise, room: Room) -> Tensor:
        """Return a random allowed image of each (B, C, H, W), before the box and the projection."""

    def corner(self, x: Tensor, slope: Tensor, room: Room) -> Tensor:
        """Return the image (B, C, H, W) at which a linear function of this slope is largest.

        That is, before the projection, and under L1 about so.
        """
        raise self._refusal("an image in a direction")

    def direction(self, x: Tensor, noise: Noise, room: Room) -> Tensor:
        """Return a random change of each example, of length one (B, C, H, W)."""
        raise self._refusal("a direction of length one")

    def steepest(self, grad: Tensor) -> Tensor:
        """Return the unit steps (B, C, H, W) that increase a linear function the most."""
        raise self._refusal("a step of a gradient attack")

    def dual(self, grad: Tensor) -> Tensor:
        """Return the dual norm of ``grad`` (..., D) over the last axis (...)."""
        raise self._refusal("a slope per unit of distance")

    def radius_in(self, norm: str, pixels: int) -> float:
        """Return the radius in ``norm`` of the smallest ball that contains all allowed images.

        Args:
            pixels: the number of entries of an image, C H W.

        Raises:
            UserError: there is no such ball.
        """
        if norm == self.norm:
            return self.eps
        raise UserError(f"a radius in {norm} says nothing about the threat {self.norm}")

    def diameter(self, shape: tuple[int, ...]) -> float:
        """Return the size at which any image (C, H, W) is allowed, as far as one may be."""
        raise self._refusal("the size that holds every image")

    def shrunk(self, share: float) -> float:
        """Return the size to search in where the border is to be left alone, a part of ``eps``."""
        return self.eps

    def _refusal(self, what: str) -> UserError:
        return UserError(
            f"{what} is asked for, which the threat {self.norm} does not have: use --norm Linf, L2 "
            "or L1"
        )


@dataclass(frozen=True)
class Ball(Geometry):
    """An Lp ball: pixels move by amounts, and every direction has a length."""

    order: ClassVar[float]
    """The order p of the norm."""
    dual_order: ClassVar[float]
    """The order q of the dual norm, 1/p + 1/q = 1."""
    largest: ClassVar[float]
    """The largest radius: a larger one was surely meant for pixels in [0, 255]."""

    def __post_init__(self) -> None:
        if not self.eps > 0:
            raise UserError(f"eps must be positive, got {self.eps:g}")
        if self.eps > self.largest:
            raise UserError(
                f"eps {self.eps:g} looks written for pixels in [0, 255], but images here are in "
                f"[0, 1]; did you mean '{self.eps:g}/255'?"
            )

    def slack(self, radius: _Radius) -> _Radius:
        """Return by how much float32 may round x + delta past the border of a ball."""
        return 1e-5 * radius

    def holds(self, distance: Tensor) -> Tensor:
        return distance <= self.eps + self.slack(self.eps)

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        norms: Tensor = torch.linalg.vector_norm((x_adv - x).flatten(1), ord=self.order, dim=1)
        return norms

    def corner(self, x: Tensor, slope: Tensor, room: Room) -> Tensor:
        return x + self.eps * self.steepest(room.allowed(slope))

    def direction(self, x: Tensor, noise: Noise, room: Room) -> Tensor:
        t = room.allowed(noise.normal(x))
        return t / over(self.distance(t, torch.zeros_like(t)).clamp_min(1e-12), t)

    def dual(self, grad: Tensor) -> Tensor:
        norms: Tensor = torch.linalg.vector_norm(grad, ord=self.dual_order, dim=-1)
        return norms

    def radius_in(self, norm: str, pixels: int) -> float:
        other = geometry(norm)
        if not issubclass(other, Ball):
            raise UserError(f"a size in {norm} says nothing about the threat {self.norm}")
        return float(self.eps * pixels ** max(0.0, 1 / other.order - 1 / self.order))

    def diameter(self, shape: tuple[int, ...]) -> float:
        channels, height, width = shape
        return float(min((channels * height * width) ** (1 / self.order), self.largest))

    def shrunk(self, share: float) -> float:
        return share * self.eps


GEOMETRIES: Registry[Geometry] = Registry("norm", __name__)


def geometry(norm: str) -> type[Geometry]:
    """Return the geometry that a norm stands for.

    Raises:
        UserError: there is none of this name.
    """
    *most, last = GEOMETRIES.names()
    if norm not in (*most, last):
        raise UserError(f"norm must be {', '.join(most)} or {last}, got {norm!r}")
    return GEOMETRIES.entry(norm).cls


def over(values: Tensor, x: Tensor) -> Tensor:
    """Return one value per example (B), shaped (B, 1, ..., 1) to broadcast over ``x`` (B, ...)."""
    return values.view(-1, *[1] * (x.ndim - 1))
