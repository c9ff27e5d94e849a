"""Hybrid zonotopes, the domain of DiffAI (Mirman et al., 2018).

https://proceedings.mlr.press/v80/mirman18b.html, section 4.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_cli.bounds.interval import Interval


@dataclass(frozen=True)
class Zonotope:
    """The values center + sum_i e_i terms_i + box b, for e_i and the entries of b in [-1, 1].

    All values of a network share the e_i; each has entries of b of its own.
    """

    center: Tensor
    """(B, ...)"""
    terms: Tensor
    """Error terms (B, M, ...)."""
    box: Tensor
    """Half the width of an independent error (B, ...), not negative."""

    @property
    def interval(self) -> Interval:
        """The bounds of each value."""
        radius = self.terms.abs().sum(1) + self.box
        return Interval(self.center - radius, self.center + radius)

    def widened(self, error: Tensor | None) -> "Zonotope":
        """Return the zonotope with an independent error (B, ...) more; None: none."""
        return self if error is None else Zonotope(self.center, self.terms, self.box + error)

    def scaled(self, slope: Tensor, low: Tensor, high: Tensor) -> "Zonotope":
        """Return what lies between two parallel lines over this zonotope.

        Args:
            slope: of both (B, ...), not negative.
            low: the constant of the lower line (B, ...).
            high: the constant of the upper one (B, ...).
        """
        return Zonotope(
            slope * self.center + (high + low) / 2,
            slope.unsqueeze(1) * self.terms,
            slope * self.box + (high - low) / 2,
        )


def around(pixels: Interval) -> Zonotope:
    """Return the zonotope of a box of images (B, C, H, W), an error term for each pixel."""
    radius = pixels.radius.flatten(1)
    terms = torch.diag_embed(radius).view(len(radius), -1, *pixels.low.shape[1:])
    return Zonotope(pixels.center, terms, torch.zeros_like(pixels.low))


def boxed(bounds: Interval, terms: int) -> Zonotope:
    """Return the zonotope of bounds (B, ...) alone; its ``terms`` error terms are zero."""
    shape = (len(bounds.low), terms, *bounds.low.shape[1:])
    return Zonotope(bounds.center, bounds.low.new_zeros(shape), bounds.radius)


KinkSlope = Callable[[Tensor, Tensor], Tensor]
"""The slope of the two lines around a ReLU, for bounds l < 0 < u of its input (B, ...)."""

RELU_TRANSFORMERS: Mapping[str, KinkSlope] = {
    "box": lambda low, _: torch.zeros_like(low),
    "diag": lambda low, _: torch.ones_like(low),
    "switch": lambda low, high: (high > -low).to(low),
    "smooth": lambda low, high: high / (high - low),
}
"""By the names of the paper without their z: ReLU as a box, [0, u] whatever its input; as the
diagonal, its input plus [0, -l]; as whichever is smaller; as their mean with weights -l and u."""
