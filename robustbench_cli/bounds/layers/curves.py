"""Activations."""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustbench_cli.bounds.activations import Activation
from robustbench_cli.bounds.rules import RULES, UnknownBounds
from robustbench_cli.bounds.trace import GraphBuilder, Symbol

_CURVE_ROUNDINGS = 32
"""Far more units in the last place than torch's float32 sigmoid, tanh and the like are wrong by."""


@RULES.layer(nn.ReLU)
def relu_layer(build: GraphBuilder, layer: nn.ReLU, x: Symbol) -> Symbol:
    """``nn.ReLU``."""
    return relu(build, x)


@RULES.function(F.relu, F.relu_, torch.relu, torch.relu_, "relu", "relu_")
def relu(build: GraphBuilder, x: Symbol, inplace: bool = False) -> Symbol:
    """ReLU."""
    operation = Activation(value=F.relu, slope=_step, convex=True, kinked=True)
    return build.add(operation, x.shape, x)


@RULES.layer(nn.LeakyReLU)
def leaky_relu_layer(build: GraphBuilder, layer: nn.LeakyReLU, x: Symbol) -> Symbol:
    """``nn.LeakyReLU``."""
    return leaky_relu(build, x, layer.negative_slope)


@RULES.function(F.leaky_relu, F.leaky_relu_)
def leaky_relu(
    build: GraphBuilder, x: Symbol, negative_slope: float = 0.01, inplace: bool = False
) -> Symbol:
    """Leaky ReLU with a slope in [0, 1] below 0."""
    if not 0 <= negative_slope <= 1:
        raise UnknownBounds(f"leaky ReLU with a slope of {negative_slope:g}")
    # torch keeps the slope in double precision, and multiplies by its float32 neighbour.
    slope = float(torch.tensor(negative_slope, dtype=torch.float32))
    operation = Activation(
        value=partial(F.leaky_relu, negative_slope=slope),
        slope=lambda v: torch.where(v < 0, slope, torch.ones_like(v)),
        convex=True,
        kinked=True,
        roundings=2,
    )
    return build.add(operation, x.shape, x)


@RULES.layer(nn.Sigmoid)
def sigmoid_layer(build: GraphBuilder, layer: nn.Sigmoid, x: Symbol) -> Symbol:
    """``nn.Sigmoid``."""
    return sigmoid(build, x)


@RULES.function(torch.sigmoid, F.sigmoid, "sigmoid")
def sigmoid(build: GraphBuilder, x: Symbol) -> Symbol:
    """The logistic function."""
    return _curve(build, x, torch.sigmoid, lambda v: v.sigmoid() * (-v).sigmoid())


@RULES.layer(nn.Tanh)
def tanh_layer(build: GraphBuilder, layer: nn.Tanh, x: Symbol) -> Symbol:
    """``nn.Tanh``."""
    return tanh(build, x)


@RULES.function(torch.tanh, F.tanh, "tanh")
def tanh(build: GraphBuilder, x: Symbol) -> Symbol:
    """The hyperbolic tangent."""
    return _curve(build, x, torch.tanh, lambda v: 1 - v.tanh().square())


@RULES.layer(nn.Softplus)
def softplus_layer(build: GraphBuilder, layer: nn.Softplus, x: Symbol) -> Symbol:
    """``nn.Softplus``."""
    return softplus(build, x, layer.beta, layer.threshold)


@RULES.function(F.softplus)
def softplus(build: GraphBuilder, x: Symbol, beta: float = 1.0, threshold: float = 20.0) -> Symbol:
    """log(1 + exp(beta x)) / beta, without torch's jump by 2e-9 at the threshold of 20."""
    if beta <= 0 or threshold < 20:
        raise UnknownBounds("softplus with other parameters")
    value = partial(F.softplus, beta=beta, threshold=1e4)
    return _curve(build, x, value, lambda v: (beta * v).sigmoid(), convex=True)


@RULES.layer(nn.ELU)
def elu_layer(build: GraphBuilder, layer: nn.ELU, x: Symbol) -> Symbol:
    """``nn.ELU``."""
    return elu(build, x, layer.alpha)


@RULES.function(F.elu, F.elu_)
def elu(build: GraphBuilder, x: Symbol, alpha: float = 1.0, inplace: bool = False) -> Symbol:
    """x above 0, alpha (exp(x) - 1) below."""
    if alpha <= 0:
        raise UnknownBounds("ELU with a negative alpha")
    value = partial(F.elu, alpha=alpha)

    def slope(v: Tensor) -> Tensor:
        return torch.where(v < 0, alpha * v.clamp_max(0).exp(), 1.0)

    return _curve(build, x, value, slope)


@RULES.layer(nn.Hardtanh, nn.ReLU6)
def hardtanh_layer(build: GraphBuilder, layer: nn.Hardtanh, x: Symbol) -> Symbol:
    """``nn.Hardtanh`` and ``nn.ReLU6``."""
    return clamp(build, x, layer.min_val, layer.max_val)


@RULES.function(F.relu6)
def relu6(build: GraphBuilder, x: Symbol, inplace: bool = False) -> Symbol:
    """ReLU, at most 6."""
    return clamp(build, x, 0.0, 6.0)


@RULES.function(F.hardtanh)
def hardtanh(
    build: GraphBuilder,
    x: Symbol,
    min_val: float = -1.0,
    max_val: float = 1.0,
    inplace: bool = False,
) -> Symbol:
    """Values clipped to an interval, [-1, 1] as a rule."""
    return clamp(build, x, min_val, max_val)


@RULES.function(torch.clamp, torch.clip, "clamp", "clip")
def clamp(build: GraphBuilder, x: Symbol, min: Any = None, max: Any = None) -> Symbol:
    """Values clipped to an interval."""
    if any(not isinstance(end, int | float | None) for end in (min, max)):
        raise UnknownBounds("clamp to values that are not numbers")
    low = -torch.inf if min is None else float(torch.tensor(min, dtype=torch.float32))
    high = torch.inf if max is None else float(torch.tensor(max, dtype=torch.float32))
    operation = Activation(
        value=lambda v: v.clamp(low, high),
        slope=lambda v: ((v >= low) & (v < high)).to(v),
    )
    return build.add(operation, x.shape, x)


def _step(x: Tensor) -> Tensor:
    return (x >= 0).to(x)


def _curve(build: GraphBuilder, x: Symbol, value: Any, slope: Any, convex: bool = False) -> Symbol:
    operation = Activation(value=value, slope=slope, convex=convex, roundings=_CURVE_ROUNDINGS)
    return build.add(operation, x.shape, x)
