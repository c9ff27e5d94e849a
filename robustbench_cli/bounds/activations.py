"""Activations: bounds through increasing functions, applied value by value."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_cli.bounds.interval import Interval, rounding_error
from robustbench_cli.bounds.operations import Operation
from robustbench_cli.bounds.zonotopes import KinkSlope, Zonotope

_SLACK = 2.0**-44
"""More than float64 loses in the constant of a line, relative to the terms it is made of."""

Curve = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Activation(Operation):
    """An increasing function of each value.

    Between lines it is kept as follows.  A ``convex`` function is below its chord, and above its
    tangent: for the ReLU family at the end where it is steeper if the upper end is farther from 0
    than the lower, else at the other (Zhang et al., 2018, https://arxiv.org/abs/1811.00866).  Any
    other, whose slope rises to one maximum and falls again, is between two lines through its ends
    with the smaller of the slopes there (Singh et al., 2019, https://doi.org/10.1145/3290354).
    """

    linear: ClassVar[bool] = False

    value: Curve
    slope: Curve
    """The derivative; at a kink that of the right side."""
    convex: bool = False
    kinked: bool = False
    """True if it is linear below 0 and linear above, so that only values of either sign matter."""
    roundings: int = 0
    """The number of roundings in a value of float32; 0: it is exact."""

    def interval(self, inputs: Sequence[Interval], unit: float) -> Interval:
        (x,) = inputs
        found = Interval(self.value(x.low), self.value(x.high))
        if not unit or not self.roundings:
            return found
        return found.widened(rounding_error(self.roundings, found.size, unit))

    def backward(self, a: Tensor, inputs: Sequence[Interval]) -> tuple[list[Tensor], Tensor]:
        (x,) = inputs
        (low, low_at), (high, high_at) = self.lines(x)
        return [a * Interval(low, high).least(a)], Interval(low_at, high_at).lowest(a)

    def zonotope(self, inputs: Sequence[Zonotope], bounds: Interval, kink: KinkSlope) -> Zonotope:
        (x,) = inputs
        within = x.interval
        low, high = within.low, within.high
        first, last = self.slope(low), self.slope(high)
        at_low, at_high = self.value(low), self.value(high)
        slope = torch.minimum(first, last)
        if self.kinked:
            # With a share s of the way from the lower slope to the upper one.
            crossing = (low < 0) & (high > 0)
            share = kink(torch.where(crossing, low, -1), torch.where(crossing, high, 1))
            slope = torch.where(crossing, first + share * (last - first), slope)
        slack = _SLACK * (at_low.abs() + at_high.abs() + slope * within.size)
        # f - slope x falls and then rises (a kink), or only rises: its ends, and 0 at a kink.
        ends = at_low - slope * low, at_high - slope * high
        below = torch.minimum(*ends)
        below = below.clamp_max(0) if self.kinked else below
        found = x.scaled(slope, below - slack, torch.maximum(*ends) + slack)
        return found.widened(bounds.error)

    def unsettled(self, bounds: Interval) -> Tensor:
        if not self.kinked:
            return super().unsettled(bounds)
        return (bounds.low < 0) & (bounds.high > 0)

    def lines(self, x: Interval) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Return a line below the function and one above it, between the bounds ``x`` (B, ...).

        Returns:
            Of each the slopes and the constants (B, ...).
        """
        low, high = x.low, x.high
        at_low, at_high = self.value(low), self.value(high)
        first, last = self.slope(low), self.slope(high)
        if not self.convex:
            least = torch.minimum(first, last)
            slack = _SLACK * (at_low.abs() + at_high.abs() + least * x.size)
            return (least, at_low - least * low - slack), (least, at_high - least * high + slack)
        wide = high > low
        chord = torch.where(wide, (at_high - at_low) / torch.where(wide, high - low, 1), last)
        slack = _SLACK * (at_high.abs() + at_low.abs() + chord * x.size)
        above = torch.maximum(at_low - chord * low, at_high - chord * high) + slack
        if not self.kinked:
            touch = x.center
            steep, at = self.slope(touch), self.value(touch)
            slack = _SLACK * (at.abs() + steep * touch.abs())
            return (steep, at - steep * touch - slack), (chord, above)
        # A line through 0.  Where the sign is known the function is that line itself, exactly.
        settled = (low >= 0) | (high <= 0)
        tangent = torch.where(high > -low, last, first)
        zero = torch.zeros_like(above)
        return (tangent, zero), (
            torch.where(settled, tangent, chord),
            torch.where(settled, zero, above),
        )
