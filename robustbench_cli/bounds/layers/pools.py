"""Pooling and means."""

import math
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustbench_cli.bounds.max_pooling import MaxPooling
from robustbench_cli.bounds.rules import RULES, UnknownBounds
from robustbench_cli.bounds.trace import GraphBuilder, Symbol


@RULES.layer(nn.AvgPool2d)
def average_pool_layer(build: GraphBuilder, layer: nn.AvgPool2d, x: Symbol) -> Symbol:
    """``nn.AvgPool2d``."""
    return average_pool(
        build,
        x,
        layer.kernel_size,
        layer.stride,
        layer.padding,
        layer.ceil_mode,
        layer.count_include_pad,
        layer.divisor_override,
    )


@RULES.function(F.avg_pool2d)
def average_pool(
    build: GraphBuilder,
    x: Symbol,
    kernel_size: int | tuple[int, int],
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Symbol:
    """``F.avg_pool2d``."""
    if divisor_override is not None and divisor_override < 0:
        raise UnknownBounds("average pooling with a negative divisor")
    rest = (kernel_size, stride or None, padding, ceil_mode, count_include_pad, divisor_override)
    terms = math.prod(_pair(kernel_size)) + 1
    return build.affine(x, lambda v, _: F.avg_pool2d(v, *rest), terms=terms)


@RULES.layer(nn.AdaptiveAvgPool2d)
def adaptive_pool_layer(build: GraphBuilder, layer: nn.AdaptiveAvgPool2d, x: Symbol) -> Symbol:
    """``nn.AdaptiveAvgPool2d``."""
    return adaptive_pool(build, x, layer.output_size)


@RULES.function(F.adaptive_avg_pool2d)
def adaptive_pool(build: GraphBuilder, x: Symbol, output_size: Any) -> Symbol:
    """``F.adaptive_avg_pool2d``."""
    return build.affine(
        x,
        lambda v, _: F.adaptive_avg_pool2d(v, output_size),
        terms=math.prod(x.shape[2:]) + 1,
    )


@RULES.function(torch.mean, "mean")
def mean(build: GraphBuilder, x: Symbol, dim: Any = None, keepdim: bool = False) -> Symbol:
    """The mean along some axes."""
    axes = _axes(x, dim)
    terms = math.prod(x.shape[i] for i in axes) + 1
    return build.affine(x, lambda v, _: v.mean(axes, keepdim=keepdim), terms=terms)


@RULES.function(torch.sum, "sum")
def total(build: GraphBuilder, x: Symbol, dim: Any = None, keepdim: bool = False) -> Symbol:
    """The sum along some axes."""
    axes = _axes(x, dim)
    terms = math.prod(x.shape[i] for i in axes)
    return build.affine(x, lambda v, _: v.sum(axes, keepdim=keepdim), terms=terms)


@RULES.layer(nn.MaxPool2d)
def max_pool_layer(build: GraphBuilder, layer: nn.MaxPool2d, x: Symbol) -> Symbol:
    """``nn.MaxPool2d``."""
    if layer.return_indices:
        raise UnknownBounds("MaxPool2d with return_indices")
    return max_pool(
        build,
        x,
        layer.kernel_size,
        layer.stride,
        layer.padding,
        layer.dilation,
        layer.ceil_mode,
    )


@RULES.function(F.max_pool2d, torch.max_pool2d)
def max_pool(
    build: GraphBuilder,
    x: Symbol,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Symbol:
    """``F.max_pool2d``."""
    if return_indices:
        raise UnknownBounds("max_pool2d with return_indices")
    kernel = _pair(kernel_size)
    operation = MaxPooling(
        kernel=kernel,
        stride=_pair(stride) if stride else kernel,
        padding=_pair(padding),
        dilation=_pair(dilation),
        ceil_mode=ceil_mode,
    )
    shape = build.shape_of(partial(_first, operation), x)
    return build.add(operation, shape, x)


def _first(operation: MaxPooling, x: Tensor) -> Tensor:
    return operation.pooled(x)[0]


def _pair(value: Any) -> tuple[int, int]:
    height, width = (value, value) if isinstance(value, int) else value
    return int(height), int(width)


def _axes(x: Symbol, dim: Any) -> tuple[int, ...]:
    if dim is None:
        raise UnknownBounds("a mean over examples")
    axes = tuple(i % len(x.shape) for i in ([dim] if isinstance(dim, int) else dim))
    if not axes or 0 in axes:
        raise UnknownBounds("a mean over examples")
    return axes
