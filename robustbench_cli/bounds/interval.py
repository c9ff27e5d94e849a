"""Intervals: a lower and an upper bound of every value of a layer."""

from dataclasses import dataclass

import torch
from torch import Tensor

FLOAT32 = 2.0**-24
"""The largest relative error of one float32 operation, rounded to nearest."""
EXACT = 0.0
"""The same of exact arithmetic: bounds as the formulas give them, without any slack."""
_TINY = 2.0**-100
"""More than what numbers below float32's normal range lose, over all terms of a sum."""
_MARGIN = 1 + 2.0**-7
"""What float64 rounding may add to a bound of float32's, see the package's docstring."""


@dataclass(frozen=True)
class Interval:
    """Bounds of the values of one layer for B examples."""

    low: Tensor
    """Lower bounds (B, ...)."""
    high: Tensor
    """Upper bounds (B, ...)."""
    error: Tensor | None = None
    """How far float32 may take the layer's values from those of exact arithmetic on the same
    inputs (B, ...); None: no rounding is allowed for, or there is none."""

    @property
    def center(self) -> Tensor:
        """The middle of the bounds (B, ...)."""
        return (self.low + self.high) / 2

    @property
    def radius(self) -> Tensor:
        """Half the distance of the bounds (B, ...)."""
        return (self.high - self.low) / 2

    @property
    def size(self) -> Tensor:
        """The largest magnitude within the bounds (B, ...)."""
        return torch.maximum(self.low.abs(), self.high.abs())

    def widened(self, error: Tensor) -> "Interval":
        """Return the interval wider by a rounding error (B, ...) on both sides, which it keeps."""
        return Interval(self.low - error, self.high + error, error)

    def within(self, low: Tensor, high: Tensor) -> "Interval":
        """Return what this interval and other bounds (B, ...) of the same values have in common."""
        # fmax and fmin: a bound that overflowed to NaN says nothing.
        return Interval(torch.fmax(self.low, low), torch.fmin(self.high, high), self.error)

    def lowest(self, a: Tensor) -> Tensor:
        """Return the smallest values within the interval of linear functions of it.

        Args:
            a: their coefficients (B, S, ...), of S functions per example.

        Returns:
            (B, S).
        """
        return (a * self.least(a)).flatten(2).sum(2)

    def least(self, a: Tensor) -> Tensor:
        """Return the bound of each value (B, S, ...) at which its term of ``lowest`` is least."""
        return torch.where(a > 0, self.low.unsqueeze(1), self.high.unsqueeze(1))


def summed(a: Tensor, values: Tensor) -> Tensor:
    """Return the sums (B, S) of ``values`` (B, ...) with weights ``a`` (B, S, ...)."""
    return torch.einsum("bsf,bf->bs", a.flatten(2), values.flatten(1))


def rounding_error(terms: int, size: Tensor, unit: float) -> Tensor:
    """Return how far a float sum may be from the exact one, in whatever order it is added up.

    n u / (1 - n u) times the sum of the terms' magnitudes, for n roundings (Higham, 2002, Accuracy
    and Stability of Numerical Algorithms, section 3.1).

    Args:
        terms: n, the number of roundings on the way of any term.
        size: the sums of the magnitudes.
        unit: u, the relative error of one operation.
    """
    share = terms * unit
    if share >= 0.5:
        return torch.full_like(size, torch.inf)  # so long a sum may be anything
    return size * (share / (1 - share) * _MARGIN) + _TINY
