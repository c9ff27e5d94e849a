"""Values that are only moved: flatten, reshape, permute, select, concatenate; and the identity."""

import operator
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustbench_cli.bounds.operations import Concatenation
from robustbench_cli.bounds.rules import RULES, UnknownBounds
from robustbench_cli.bounds.trace import GraphBuilder, Symbol


@RULES.layer(nn.Identity)
def identity(build: GraphBuilder, layer: nn.Module, x: Symbol) -> Symbol:
    """A layer that returns its input."""
    return x


@RULES.layer(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
def dropout_layer(build: GraphBuilder, layer: nn.Dropout, x: Symbol) -> Symbol:
    """Dropout, which does nothing in evaluation mode."""
    return dropout(build, x, layer.p, layer.training)


@RULES.function(F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, torch.dropout)
def dropout(
    build: GraphBuilder, x: Symbol, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Symbol:
    """``F.dropout`` where it is off."""
    if training and p:
        raise UnknownBounds("dropout in training mode")
    return x


@RULES.function("contiguous", "clone", "detach", "float", torch.clone, torch.detach)
def unchanged(build: GraphBuilder, x: Symbol) -> Symbol:
    """A call that changes no float32 value."""
    return x


@RULES.layer(nn.Flatten)
def flatten_layer(build: GraphBuilder, layer: nn.Flatten, x: Symbol) -> Symbol:
    """``nn.Flatten``."""
    return flatten(build, x, layer.start_dim, layer.end_dim)


@RULES.function(torch.flatten, "flatten")
def flatten(build: GraphBuilder, x: Symbol, start_dim: int = 0, end_dim: int = -1) -> Symbol:
    """Neighbouring axes as one."""
    return _moved(build, x, partial(torch.flatten, start_dim=start_dim, end_dim=end_dim))


@RULES.layer(nn.Unflatten)
def unflatten_layer(build: GraphBuilder, layer: nn.Unflatten, x: Symbol) -> Symbol:
    """``nn.Unflatten``."""
    sizes: Any = layer.unflattened_size
    return _moved(build, x, lambda v: torch.unflatten(v, layer.dim, sizes))


@RULES.function("view", "reshape", torch.reshape)
def reshape(build: GraphBuilder, x: Symbol, *sizes: Any) -> Symbol:
    """Another shape with the same examples."""
    wanted: Sequence[int] = sizes[0] if isinstance(sizes[0], tuple | list) else sizes
    shape = build.shape_of(lambda v: v.reshape(*wanted), x)
    if not shape or shape[0] != x.shape[0]:
        raise UnknownBounds("a reshape that mixes examples")
    return _moved(build, x, lambda v: v.reshape(len(v), *shape[1:]))


@RULES.function("size")
def size(build: GraphBuilder, x: Symbol, dim: int | None = None) -> Any:
    """The shape of a value, or its length along one axis."""
    return x.shape if dim is None else x.shape[dim]


@RULES.function("dim", "ndimension")
def dimensions(build: GraphBuilder, x: Symbol) -> int:
    """The number of axes of a value."""
    return len(x.shape)


@RULES.function(getattr)
def attribute(build: GraphBuilder, x: Symbol, name: str) -> Any:
    """An attribute of a tensor that does not depend on its values."""
    known: dict[str, Any] = {"shape": x.shape, "ndim": len(x.shape), "dtype": torch.float32}
    if name not in known:
        raise UnknownBounds(f"the attribute {name!r} of a value")
    return known[name]


@RULES.function(torch.squeeze, "squeeze")
def squeeze(build: GraphBuilder, x: Symbol, dim: Any = None) -> Symbol:
    """Without axes of length one."""
    axes = tuple(i for i, n in enumerate(x.shape) if n == 1) if dim is None else dim
    return _moved(build, x, lambda v: v.squeeze(axes))


@RULES.function(torch.unsqueeze, "unsqueeze")
def unsqueeze(build: GraphBuilder, x: Symbol, dim: int) -> Symbol:
    """With one more axis of length one."""
    return _moved(build, x, lambda v: v.unsqueeze(dim))


@RULES.function(torch.permute, "permute")
def permute(build: GraphBuilder, x: Symbol, *dims: Any) -> Symbol:
    """Axes in another order; that of the examples stays the first."""
    order = tuple(dims[0]) if isinstance(dims[0], tuple | list) else dims
    if order[0] != 0:
        raise UnknownBounds("a permutation that moves the axis of examples")
    return _moved(build, x, lambda v: v.permute(order))


@RULES.function(torch.transpose, "transpose")
def transpose(build: GraphBuilder, x: Symbol, dim0: int, dim1: int) -> Symbol:
    """Two axes exchanged."""
    order = list(range(len(x.shape)))
    order[dim0], order[dim1] = order[dim1], order[dim0]
    return permute(build, x, *order)


@RULES.function(operator.getitem)
def select(build: GraphBuilder, x: Any, key: Any) -> Any:
    """Some values of each example, ``x[:, key]``; or an entry of a shape."""
    keys = key if isinstance(key, tuple) else (key,)
    if keys[0] not in (slice(None), Ellipsis) if not isinstance(keys[0], Tensor) else True:
        raise UnknownBounds("a selection of examples")
    return _moved(build, x, lambda v: v[keys])


@RULES.function(torch.cat, torch.concat)
def concatenate(build: GraphBuilder, tensors: Sequence[Symbol], dim: int = 0) -> Symbol:
    """Values one after the other."""
    if not all(isinstance(each, Symbol) for each in tensors):
        raise UnknownBounds("cat with a constant")
    axis = dim % len(tensors[0].shape)
    if axis == 0:
        raise UnknownBounds("cat of examples")
    shape = list(tensors[0].shape)
    shape[axis] = sum(each.shape[axis] for each in tensors)
    return build.add(Concatenation(axis=axis), torch.Size(shape), *tensors)


@RULES.layer(nn.ZeroPad2d)
def zero_pad_layer(build: GraphBuilder, layer: nn.ZeroPad2d, x: Symbol) -> Symbol:
    """A border of zeros."""
    return _moved(build, x, lambda v: F.pad(v, layer.padding))


@RULES.function(F.pad)
def pad(
    build: GraphBuilder, x: Symbol, pad: Any, mode: str = "constant", value: float | None = None
) -> Symbol:
    """A border of zeros."""
    if mode != "constant" or value:
        raise UnknownBounds("pad with anything but zeros")
    return _moved(build, x, lambda v: F.pad(v, list(pad)))


def _moved(build: GraphBuilder, x: Symbol, move: Callable[[Tensor], Tensor]) -> Symbol:
    return build.affine(x, lambda v, _: move(v))
