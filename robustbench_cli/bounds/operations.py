"""The operations of a network, as bounds pass through them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_cli.bounds.interval import Interval, rounding_error
from robustbench_cli.bounds.zonotopes import KinkSlope, Zonotope, boxed


class Operation(ABC):
    """One operation of a network on values (B, ...), each example by itself."""

    linear: ClassVar[bool] = True
    """True if it is linear but for a constant, so that linear functions pass through it exactly."""

    @abstractmethod
    def interval(self, inputs: Sequence[Interval], unit: float) -> Interval:
        """Return bounds of the output.

        Args:
            inputs: bounds of the inputs.
            unit: the relative rounding error to allow for; 0: none.
        """

    @abstractmethod
    def backward(self, a: Tensor, inputs: Sequence[Interval]) -> tuple[list[Tensor], Tensor]:
        """Return linear functions of the inputs that are nowhere above those of the output.

        Args:
            a: coefficients (B, S, ...) of S linear functions of the output per example.
            inputs: bounds of the inputs, within which that holds.

        Returns:
            The coefficients of each input (B, S, ...), and constants (B, S).
        """

    def zonotope(self, inputs: Sequence[Zonotope], bounds: Interval, kink: KinkSlope) -> Zonotope:
        """Return a zonotope that holds the output; as a rule its bounds alone.

        Args:
            inputs: zonotopes of the inputs.
            bounds: of the output, by the bounds of the inputs; with the rounding error, if any.
            kink: the transformer of ReLU and its like.
        """
        return boxed(bounds, inputs[0].terms.shape[1])

    def unsettled(self, bounds: Interval) -> Tensor:
        """Return for which of the input's values tighter bounds would tighten the output (B, ...).

        Args:
            bounds: those that are known (B, ...).
        """
        return torch.ones_like(bounds.low, dtype=torch.bool)


@dataclass(frozen=True, kw_only=True)
class AffineMap(Operation):
    """A linear map plus a constant."""

    apply: Callable[[Tensor, Tensor | None], Tensor]
    """Maps values (N, ...) and the weight to values (N, ...), linearly in either."""
    weight: Tensor | None = None
    """The weight; with its absolute values ``apply`` must be the map with absolute coefficients.
    None: no coefficient is negative."""
    shift: Tensor | None = None
    """The constant, which broadcasts to the output of one example."""
    terms: int = 0
    """The number of roundings on the way of a term; 0: values are only moved, exactly."""

    def interval(self, inputs: Sequence[Interval], unit: float) -> Interval:
        (x,) = inputs
        if self.weight is None:
            low, high, absolute = self.apply(x.low, None), self.apply(x.high, None), None
        else:
            absolute = self.weight.abs()
            center, radius = self.apply(x.center, self.weight), self.apply(x.radius, absolute)
            low, high = center - radius, center + radius
        if self.shift is not None:
            low, high = low + self.shift, high + self.shift
        if not unit or not self.terms:
            return Interval(low, high)
        size = self.apply(x.size, absolute)
        size = size if self.shift is None else size + self.shift.abs()
        return Interval(low, high).widened(rounding_error(self.terms, size, unit))

    def backward(self, a: Tensor, inputs: Sequence[Interval]) -> tuple[list[Tensor], Tensor]:
        shape = inputs[0].low.shape[1:]
        flat = self.transposed(a.flatten(0, 1), shape)
        return [flat.view(*a.shape[:2], *flat.shape[1:])], self._constant(a)

    def zonotope(self, inputs: Sequence[Zonotope], bounds: Interval, kink: KinkSlope) -> Zonotope:
        (x,) = inputs
        absolute = None if self.weight is None else self.weight.abs()
        center = self.apply(x.center, self.weight)
        center = center if self.shift is None else center + self.shift
        terms = self.apply(x.terms.flatten(0, 1), self.weight)
        terms = terms.view(*x.terms.shape[:2], *terms.shape[1:])
        return Zonotope(center, terms, self.apply(x.box, absolute)).widened(bounds.error)

    def transposed(self, a: Tensor, shape: torch.Size) -> Tensor:
        """Return the coefficients (N, *shape) of the input, for those of the output (N, ...)."""
        with torch.enable_grad():
            x = a.new_zeros(len(a), *shape).requires_grad_()
            out = self.apply(x, self.weight)
        learned = a.requires_grad or (self.weight is not None and self.weight.requires_grad)
        create = torch.is_grad_enabled() and learned
        (found,) = torch.autograd.grad(out, x, a, create_graph=create, materialize_grads=True)
        return found

    def _constant(self, a: Tensor) -> Tensor:
        if self.shift is None:
            return a.new_zeros(a.shape[:2])
        return a.flatten(2) @ self.shift.expand(a.shape[2:]).flatten()


@dataclass(frozen=True, kw_only=True)
class WeightedSum(Operation):
    """A sum of several values of one shape, each with a sign."""

    signs: tuple[int, ...]
    """1 or -1, one per input."""

    def interval(self, inputs: Sequence[Interval], unit: float) -> Interval:
        pairs = list(zip(self.signs, inputs, strict=True))
        low = reduce(add, [x.low if sign > 0 else -x.high for sign, x in pairs])
        found = Interval(low, reduce(add, [x.high if sign > 0 else -x.low for sign, x in pairs]))
        if not unit or len(pairs) == 1:
            return found
        size = reduce(add, [x.size for _, x in pairs])
        return found.widened(rounding_error(len(pairs), size, unit))

    def backward(self, a: Tensor, inputs: Sequence[Interval]) -> tuple[list[Tensor], Tensor]:
        return [sign * a for sign in self.signs], a.new_zeros(a.shape[:2])

    def zonotope(self, inputs: Sequence[Zonotope], bounds: Interval, kink: KinkSlope) -> Zonotope:
        pairs = list(zip(self.signs, inputs, strict=True))
        center = reduce(add, [sign * x.center for sign, x in pairs])
        terms = reduce(add, [sign * x.terms for sign, x in pairs])
        return Zonotope(center, terms, reduce(add, [x.box for x in inputs])).widened(bounds.error)


@dataclass(frozen=True, kw_only=True)
class Concatenation(Operation):
    """Values one after the other."""

    axis: int
    """The axis, counted with that of the examples: 1 or more."""

    def interval(self, inputs: Sequence[Interval], unit: float) -> Interval:
        low = torch.cat([x.low for x in inputs], self.axis)
        return Interval(low, torch.cat([x.high for x in inputs], self.axis))

    def backward(self, a: Tensor, inputs: Sequence[Interval]) -> tuple[list[Tensor], Tensor]:
        parts, start = [], 0
        for x in inputs:
            length = x.low.shape[self.axis]
            parts.append(a.narrow(self.axis + 1, start, length))
            start += length
        return parts, a.new_zeros(a.shape[:2])

    def zonotope(self, inputs: Sequence[Zonotope], bounds: Interval, kink: KinkSlope) -> Zonotope:
        terms = torch.cat([x.terms for x in inputs], self.axis + 1)
        center = torch.cat([x.center for x in inputs], self.axis)
        return Zonotope(center, terms, torch.cat([x.box for x in inputs], self.axis))
