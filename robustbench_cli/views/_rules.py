"""The gradients that functions get while they are intercepted, by function."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from robustbench_cli.views._interception import Call, GradientRule, Interception

_LEAK = 0.05
"""The gradient of a clamped or rectified value beyond its border."""
_SOFTNESS = 0.25
"""The width of a smooth step, as a fraction of the root mean square of its argument."""


def _differentiable(x: Any) -> bool:
    return isinstance(x, Tensor) and x.requires_grad and x.is_floating_point()


def _spread(x: Tensor) -> Tensor:
    """The root mean square of each example, shaped to broadcast over ``x`` (B, ...); detached."""
    plain = x.detach()
    axes = tuple(range(1, plain.ndim))
    square = plain.square().mean(axes, keepdim=True) if axes else plain.square()
    return square.sqrt().clamp_min(1e-6)


def _constant(by: Interception, func: Call, args: Any, kwargs: Any) -> Any:
    """The gradient stays switched on."""
    return func(args[0] if by.paused else True, *args[1:], **kwargs)


def _attached(_by: Interception, func: Call, args: Any, kwargs: Any) -> Any:
    """A detached copy that is not detached."""
    return args[0].clone() if _differentiable(args[0]) else func(*args, **kwargs)


def _exported(by: Interception, func: Call, args: Any, kwargs: Any) -> Any:
    """An array outside of torch; what comes back of its shape gets the gradient."""
    if isinstance(args[0], Tensor):
        by.export(args[0])
        return func(args[0].detach(), *args[1:], **kwargs)
    return func(*args, **kwargs)


def _required(by: Interception, func: Call, args: Any, kwargs: Any) -> Any:
    """A tensor that a model wants the gradient of, in its forward pass."""
    if _differentiable(args[0]) and not args[0].is_leaf:
        args[0].retain_grad()
        by.graded.append(args[0])
        return args[0]
    return func(*args, **kwargs)


def _rounded(by: Interception, func: Call, args: Any, kwargs: Any) -> Any:
    """Rounding has the gradient of the identity."""
    if not _differentiable(args[0]):
        return by.call(func, args, kwargs)
    return by.attach(func(args[0].detach().clone(), *args[1:], **kwargs), args[0])


def _whole(by: Interception, func: Call, args: Any, kwargs: Any) -> Any:
    """A conversion to whole numbers is rounding; any other one is left alone."""
    out = by.call(func, args, kwargs)
    if _differentiable(args[0]) and isinstance(out, Tensor) and not out.is_floating_point():
        return by.attach(out, args[0])
    return out


def _quotient(by: Interception, func: Call, args: Any, kwargs: Any) -> Any:
    """A quotient that is rounded has the gradient of the quotient."""
    rounds = kwargs.get("rounding_mode") is not None or func not in _DIVISIONS
    if not rounds or not _differentiable(args[0]):
        return by.call(func, args, kwargs)
    plain = {key: value for key, value in kwargs.items() if key != "rounding_mode"}
    return by.attach(func(*args, **kwargs), torch.true_divide(*args[:2], **plain))


def _remainder(by: Interception, func: Call, args: Any, kwargs: Any) -> Any:
    """A remainder goes up and down: on average it does not change."""
    if not _differentiable(args[0]):
        return by.call(func, args, kwargs)
    return by.attach(func(*args, **kwargs), 0 * args[0])


def _signed(by: Interception, func: Call, args: Any, kwargs: Any) -> Any:
    """A sign has the gradient of a smooth step."""
    if not _differentiable(args[0]):
        return by.call(func, args, kwargs)
    x = args[0]
    return by.attach(
        func(x.detach().clone(), *args[1:], **kwargs), _bent(x, _SOFTNESS * _spread(x))
    )


def _bent(x: Tensor, width: Tensor) -> Tensor:
    """A smooth sign whose gradient falls off slowly: x / (width + |x|)."""
    return x / (width + x.abs())


def _compared(up: bool) -> GradientRule:
    """A comparison has the gradient of a smooth step, once its truth values are numbers."""

    def rule(by: Interception, func: Call, args: Any, kwargs: Any) -> Any:
        out = by.call(func, args, kwargs)
        if len(args) < 2 or not any(map(_differentiable, args[:2])):
            return out
        apart = args[0] - args[1] if up else args[1] - args[0]
        return by.attach(out, (1 + _bent(apart, _SOFTNESS * _spread(apart))) / 2)

    return rule


def _chosen(by: Interception, func: Call, args: Any, kwargs: Any) -> Any:
    """A choice between two tensors is a mixture of them, where the choice has a gradient."""
    out = func(*args, **kwargs)
    share = by.companion(args[0])
    if share is None or len(args) < 3:
        return out
    mixture = share * args[1] + (1 - share) * args[2]
    return by.attach(out, mixture) if bool(mixture.isfinite().all()) else out


def _limited(by: Interception, func: Call, args: Any, kwargs: Any) -> Any:
    """A clamped or rectified value has a small gradient beyond its border."""
    if not _differentiable(args[0]):
        return by.call(func, args, kwargs)
    x = args[0].clone()
    out = func(x.clone(), *args[1:], **kwargs)
    return by.attach(out, out + _LEAK * (x - out) if out.shape == x.shape else out)


def _squashed(by: Interception, func: Call, args: Any, kwargs: Any) -> Any:
    """A sigmoid or a tanh has the gradient of a step that saturates slowly."""
    if not _differentiable(args[0]):
        return by.call(func, args, kwargs)
    width = _spread(args[0]).clamp_min(1.0)
    return by.attach(func(*args, **kwargs), _bent(args[0], width))


def _root(by: Interception, func: Call, args: Any, kwargs: Any) -> Any:
    """A square root has a finite gradient at zero."""
    if not _differentiable(args[0]):
        return by.call(func, args, kwargs)
    return by.attach(func(args[0].detach().clone()), (args[0] + 1e-4).sqrt())


def _named(*names: str) -> Iterator[Call]:
    """The functions, methods and in-place methods of these names."""
    for name in names:
        for owner, form in ((torch, name), (torch.Tensor, name), (torch.Tensor, f"{name}_")):
            if hasattr(owner, form):
                yield getattr(owner, form)


_DIVISIONS = {*_named("div", "divide")}

_STRAIGHT: Mapping[Call, GradientRule] = {
    torch._C._set_grad_enabled: _constant,
    **dict.fromkeys([*_named("detach"), torch.Tensor.data.__get__], _attached),  # type: ignore[attr-defined]
    **dict.fromkeys(_named("numpy", "__array__"), _exported),
    torch.Tensor.requires_grad_: _required,
    **dict.fromkeys(_named("round", "floor", "ceil", "trunc", "fix"), _rounded),
    **dict.fromkeys(_named("int", "long", "byte", "short", "char", "bool", "to", "type"), _whole),
    **dict.fromkeys([*_named("floor_divide", "div", "divide")], _quotient),
    torch.Tensor.__floordiv__: _quotient,
    **dict.fromkeys(_named("sign", "sgn"), _signed),
    **dict.fromkeys(_named("gt", "ge", "greater", "greater_equal"), _compared(up=True)),
    **dict.fromkeys(_named("lt", "le", "less", "less_equal"), _compared(up=False)),
    **dict.fromkeys(_named("clamp", "clip", "clamp_min", "clamp_max"), _limited),
    **dict.fromkeys(_named("sqrt"), _root),
    torch.where: _chosen,
}

STRAIGHT_THROUGH: Mapping[Call, GradientRule] = {
    **_STRAIGHT,
    **dict.fromkeys([*_named("remainder", "fmod", "frac"), torch.Tensor.__rmod__], _remainder),
}
"""Rounding, comparisons, detached tensors, remainders: what has no gradient or a useless one."""

STRAIGHT_THROUGH_WITH_REMAINDERS: Mapping[Call, GradientRule] = _STRAIGHT
"""The same, but remainders keep the gradient of a straight line."""

SMOOTH_ACTIVATIONS: Mapping[Call, GradientRule] = {
    **STRAIGHT_THROUGH,
    **dict.fromkeys([*_named("relu"), F.relu, F.relu6, F.hardtanh, F.threshold], _limited),
    **dict.fromkeys([*_named("sigmoid", "tanh"), F.hardsigmoid], _squashed),
}
"""The same, and activations that saturate keep a gradient."""
