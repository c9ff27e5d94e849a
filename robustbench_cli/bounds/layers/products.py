"""Linear layers and convolutions."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_input

from robustbench_cli.bounds.operations import AffineMap
from robustbench_cli.bounds.rules import RULES, UnknownBounds
from robustbench_cli.bounds.trace import GraphBuilder, Symbol


class _Product(AffineMap):
    """A linear layer, whose transposition is a product, too."""

    def transposed(self, a: Tensor, shape: torch.Size) -> Tensor:
        assert self.weight is not None
        return a @ self.weight


@dataclass(frozen=True, kw_only=True)
class _Convolution(AffineMap):
    """A convolution of images, with the transposition that torch has for it."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    def transposed(self, a: Tensor, shape: torch.Size) -> Tensor:
        rest = (self.stride, self.padding, self.dilation, self.groups)
        found: Tensor = conv2d_input((len(a), *shape), self.weight, a, *rest)  # type: ignore[no-untyped-call]
        return found


@RULES.layer(nn.Linear)
def linear_layer(build: GraphBuilder, layer: nn.Linear, x: Symbol) -> Symbol:
    """A linear layer."""
    return linear_function(build, x, layer.weight, layer.bias)


@RULES.function(F.linear)
def linear_function(build: GraphBuilder, x: Symbol, weight: Any, bias: Any = None) -> Symbol:
    """``F.linear`` with a weight that does not depend on the image."""
    w, b = _weights(build, weight, bias)
    operation = _Product(apply=_linear, weight=w, shift=b, terms=w.shape[1] + (b is not None))
    return build.add(operation, torch.Size([*x.shape[:-1], len(w)]), x)


@RULES.layer(nn.Conv2d)
def convolution_layer(build: GraphBuilder, layer: nn.Conv2d, x: Symbol) -> Symbol:
    """A convolution of images, padded with zeros."""
    if layer.padding_mode != "zeros":
        raise UnknownBounds(f"Conv2d with padding_mode={layer.padding_mode!r}")
    rest: Any = (layer.stride, layer.padding, layer.dilation, layer.groups)
    return convolution(build, x, layer.weight, layer.bias, *rest)


@RULES.function(F.conv2d, torch.conv2d)
def convolution(
    build: GraphBuilder,
    x: Symbol,
    weight: Any,
    bias: Any = None,
    stride: int | tuple[int, int] = 1,
    padding: str | int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
) -> Symbol:
    """``F.conv2d`` with a weight that does not depend on the image."""
    w, b = _weights(build, weight, bias)
    apply = partial(_convolved, stride=stride, padding=padding, dilation=dilation, groups=groups)
    terms = math.prod(w.shape[1:]) + (b is not None)
    shift = None if b is None else b.view(-1, 1, 1)
    if isinstance(padding, str):
        return build.affine(x, apply, weight=w, shift=shift, terms=terms)
    shape = build.shape_of(lambda v: apply(v, w.to("meta")), x)
    operation = _Convolution(
        apply=apply,
        weight=w,
        shift=shift,
        terms=terms,
        stride=_pair(stride),
        padding=_pair(padding),
        dilation=_pair(dilation),
        groups=groups,
    )
    return build.add(operation, shape, x)


def _linear(x: Tensor, weight: Tensor | None) -> Tensor:
    assert weight is not None
    return F.linear(x, weight)


def _convolved(x: Tensor, weight: Tensor | None, **rest: Any) -> Tensor:
    assert weight is not None
    return F.conv2d(x, weight, None, **rest)


def _weights(build: GraphBuilder, weight: Any, bias: Any) -> tuple[Tensor, Tensor | None]:
    if isinstance(weight, Symbol) or isinstance(bias, Symbol):
        raise UnknownBounds("a product of two values that depend on the image")
    return build.constant(weight), None if bias is None else build.constant(bias)


def _pair(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return (value, value) if isinstance(value, int) else tuple(value)
