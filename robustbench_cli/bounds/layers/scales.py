"""Products and sums with constants, sums of values, and batch norm."""

import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustbench_cli.bounds.operations import WeightedSum
from robustbench_cli.bounds.rules import RULES, UnknownBounds
from robustbench_cli.bounds.trace import GraphBuilder, Symbol

_NORM_ROUNDINGS = 8
"""More than batch norm has on the way of a term, folded into a factor and a shift or not."""


@RULES.function(operator.add, operator.iadd, torch.add, "add", "add_")
def add(build: GraphBuilder, x: Any, y: Any) -> Symbol:
    """A sum of two values, or of one and a constant."""
    return _sum(build, x, y, (1, 1))


@RULES.function(operator.sub, operator.isub, torch.sub, "sub", "sub_")
def subtract(build: GraphBuilder, x: Any, y: Any) -> Symbol:
    """A difference of two values, or of one and a constant."""
    return _sum(build, x, y, (1, -1))


@RULES.function(operator.mul, operator.imul, torch.mul, "mul", "mul_")
def multiply(build: GraphBuilder, x: Any, y: Any) -> Symbol:
    """A product with a constant."""
    value, factor = (x, y) if isinstance(x, Symbol) else (y, x)
    if isinstance(factor, Symbol):
        raise UnknownBounds("a product of two values that depend on the image")
    return _scaled(build, value, build.constant(factor))


@RULES.function(operator.truediv, operator.itruediv, torch.div, torch.true_divide, "div", "div_")
def divide(build: GraphBuilder, x: Any, y: Any) -> Symbol:
    """A value divided by a constant."""
    if isinstance(y, Symbol):
        raise UnknownBounds("a quotient by a value that depends on the image")
    return _scaled(build, x, 1 / build.constant(y))


@RULES.function(operator.neg, torch.neg, "neg")
def negate(build: GraphBuilder, x: Symbol) -> Symbol:
    """A value with the other sign."""
    return build.add(WeightedSum(signs=(-1,)), x.shape, x)


@RULES.layer(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
def batch_norm_layer(
    build: GraphBuilder, layer: nn.modules.batchnorm._BatchNorm, x: Symbol
) -> Symbol:
    """Batch norm by its running statistics."""
    if layer.training:
        raise UnknownBounds(f"{type(layer).__name__} in training mode")
    if layer.running_mean is None or layer.running_var is None:
        raise UnknownBounds(f"{type(layer).__name__} without running statistics")
    statistics = layer.running_mean, layer.running_var
    return batch_norm(build, x, *statistics, layer.weight, layer.bias, eps=layer.eps)


@RULES.function(F.batch_norm)
def batch_norm(
    build: GraphBuilder,
    x: Symbol,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Symbol:
    """``F.batch_norm`` by running statistics."""
    if training:
        raise UnknownBounds("batch_norm in training mode")
    mean, var = build.constant(running_mean), build.constant(running_var)
    factor = (var + eps).rsqrt()
    factor = factor if weight is None else factor * build.constant(weight)
    around = [-1, *[1] * (len(x.shape) - 2)]
    moved = _scaled(build, x, factor.view(around), _NORM_ROUNDINGS)
    # The mean and the bias are rounded apart, so they may not cancel here.
    moved = _shifted(build, moved, -(mean * factor).view(around), _NORM_ROUNDINGS)
    return moved if bias is None else _shifted(build, moved, build.constant(bias).view(around), 2)


def _sum(build: GraphBuilder, x: Any, y: Any, signs: tuple[int, int]) -> Symbol:
    if isinstance(x, Symbol) and isinstance(y, Symbol):
        if x.shape != y.shape:
            raise UnknownBounds("a sum of values of different shapes")
        return build.add(WeightedSum(signs=signs), x.shape, x, y)
    if isinstance(x, Symbol):
        return _shifted(build, x, signs[1] * build.constant(y), 1)
    shape = y.shape
    negative = y if signs[1] > 0 else build.add(WeightedSum(signs=(-1,)), shape, y)
    return _shifted(build, negative, build.constant(x), 1)


def _scaled(build: GraphBuilder, x: Symbol, factor: Tensor, terms: int = 1) -> Symbol:
    _broadcasts(x, factor)
    return build.affine(x, _product, weight=factor, terms=terms)


def _shifted(build: GraphBuilder, x: Symbol, shift: Tensor, terms: int) -> Symbol:
    _broadcasts(x, shift)
    return build.affine(x, _itself, shift=_of_one(shift, x), terms=terms)


def _broadcasts(x: Symbol, other: Tensor) -> None:
    """Refuse a constant that gives a value another shape, or each example its own."""
    own = other.ndim == len(x.shape) and other.shape[0] != 1
    if own or not _fits(other.shape, x.shape):
        raise UnknownBounds(f"a constant of shape {tuple(other.shape)} here")


def _fits(shape: torch.Size, other: torch.Size) -> bool:
    """Return whether a tensor of ``shape`` broadcasts to ``other``."""
    ends = zip(reversed(shape), reversed(other), strict=False)
    return len(shape) <= len(other) and all(a in (1, b) for a, b in ends)


def _of_one(shift: Tensor, x: Symbol) -> Tensor:
    """Return a constant without the axis of examples."""
    return shift.squeeze(0) if shift.ndim == len(x.shape) else shift


def _product(x: Tensor, factor: Tensor | None) -> Tensor:
    assert factor is not None
    return x * factor


def _itself(x: Tensor, _weight: Tensor | None) -> Tensor:
    return x
