"""A device that is not there: tensors that say they are on it, computed on the CPU.

Tensors on it answer ``device(type="meta")``, and every operation of torch on them arrives here.
It is computed on the CPU, on numbers that are really there, so that code which looks at them goes
the way it would on a GPU; and two things that break or slow a program on a GPU are seen without
one:

- An operation on tensors of both places raises ``RuntimeError``, as it does on a GPU.
- A program that reads a number, that asks how large a result is, or that brings numbers over from
  the CPU, waits until the GPU has done all that it was given.  Each such wait is noted, with the
  functions of the package that were running.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, NoReturn
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

PRETENDED = torch.device("meta")
CPU = torch.device("cpu")
PACKAGE = str(Path(__file__).parents[2] / "robustbench_cli") + "/"

aten = torch.ops.aten
READ = {
    aten._local_scalar_dense.default,
    aten.is_nonzero.default,
    aten.equal.default,
    aten._linalg_check_errors.default,
}
"""Operations that tell Python a number, or raise because of one."""
SIZED = {
    aten.nonzero.default,
    aten.masked_select.default,
    aten._unique2.default,
    aten.unique_dim.default,
    aten.unique_consecutive.default,
    aten.bincount.default,
    aten.repeat_interleave.Tensor,
}
"""Operations whose result has a size that depends on numbers."""
INDEXED = {
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
    aten._unsafe_index.Tensor,
}
"""Operations that count what a mask leaves, and that take indices from the CPU, too."""
REFUSED = "refused"
"""The beginning of what is noted where an operation is refused."""
MOVED = {aten._to_copy.default, aten.copy_.default, aten.copy.default}
"""Operations between places."""


class Wait(NamedTuple):
    """One time that the device was waited for."""

    operation: str
    line: int
    path: tuple[str, ...]
    """The functions of the package that were running, as ``attacks/pgd.py:PGD.move``, the one that
    waited last; ``line`` is in that one."""

    @property
    def place(self) -> str:
        return self.path[-1] if self.path else "outside of the package"

    def inside(self, function: str) -> bool:
        """Whether it happened in a function whose path ends so, e.g. ``pgd.py:PGD.move``."""
        return any(each.endswith(function) for each in self.path)

    def __str__(self) -> str:
        return f"{self.place} (line {self.line}) by {self.operation}"


class OnDevice(Tensor):
    """A tensor that says it is on the device; ``held`` is the one on the CPU."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "OnDevice":
        made = Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=PRETENDED,
        )
        made.held = held
        return made

    def __repr__(self, *, tensor_contents: object = None) -> str:
        return f"OnDevice({self.held!r})"

    def tolist(self) -> Any:
        _note("tolist")
        return self.held.tolist()

    def numpy(self, *, force: bool = False) -> Any:
        _refuse("numpy() of a tensor on the device")

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})


_noting: list[list[Wait]] = []


@contextmanager
def pretended_device() -> Iterator[None]:
    """Let ``device="meta"`` mean the device while the context is open."""
    autocast = torch.autocast

    def without_autocast(where: str, *args: Any, **rest: Any) -> Any:
        return autocast(CPU.type if where == PRETENDED.type else where, *args, **rest)

    with ExitStack() as changed:
        changed.enter_context(_Operations())
        changed.enter_context(patch.object(torch, "autocast", without_autocast))
        fused = "_get_fused_kernels_supported_devices"  # of optimisers: this device has them, too
        optimizer = sys.modules["torch.optim.optimizer"]
        changed.enter_context(patch.object(optimizer, fused, lambda: [CPU.type, PRETENDED.type]))
        for name in ("tensor", "as_tensor", "asarray"):
            changed.enter_context(patch.object(torch, name, _of_numbers(getattr(torch, name))))
        changed.enter_context(patch.object(Tensor, "new_tensor", _new_tensor, create=True))
        yield


@contextmanager
def waits() -> Iterator[list[Wait]]:
    """Note the waits while the context is open."""
    found: list[Wait] = []
    _noting.append(found)
    try:
        yield found
    finally:
        _noting[:] = [each for each in _noting if each is not found]


def on_device(tensor: Tensor) -> OnDevice:
    """Return a copy that says it is on the device."""
    return OnDevice(tensor.detach().clone())


def module_on_device(module: nn.Module) -> nn.Module:
    """Move the weights and buffers of a module, in place."""
    for part in module.modules():
        for name, weight in part._parameters.items():
            if weight is not None:
                part._parameters[name] = nn.Parameter(on_device(weight), weight.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = on_device(buffer)
    return module


class _Operations(TorchDispatchMode):
    """Every operation arrives here, those that make tensors included."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else the first operation imports torch's compiler, which takes seconds

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if types or kwargs.get("device") is not None:
            return computed(func, args, kwargs)
        return func(*args, **kwargs)


def computed(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Compute an operation that may have to do with the device."""
    ours: list[Tensor] = []
    here: list[Tensor] = []

    def real(value: Any) -> Any:
        if isinstance(value, OnDevice):
            ours.append(value)
            return value.held
        if isinstance(value, Tensor):
            here.append(value)
        elif isinstance(value, list | tuple):
            return [real(each) for each in value]
        return value

    given = [real(each) for each in args]
    named = {key: real(value) for key, value in kwargs.items()}
    place = named.get("device")
    if place is not None:
        place = torch.device(place)
        named["device"] = CPU if place == PRETENDED else place
    result_is_ours = bool(ours) if place is None else place == PRETENDED
    if not ours and not result_is_ours:
        return func(*given, **named)
    kind = _kind_of(func)
    _check_places(func, kind, args, ours, here, named)
    if kind.watched:
        why = _why_it_waits(func, kind, args, ours, here, named, result_is_ours)
        if why:
            _note(f"{func}{why}")
    out = func(*given, **named)
    if kind.written is not None:
        return kwargs[kind.written] if isinstance(kind.written, str) else args[kind.written]
    return _wrapped(out) if result_is_ours else out


def _wrapped(value: Any) -> Any:
    if isinstance(value, Tensor):
        return OnDevice(value)
    if isinstance(value, list | tuple):
        return type(value)(_wrapped(each) for each in value)
    return value


class Kind(NamedTuple):
    """What is to be known of an operation."""

    moves: bool
    indexes: bool
    watched: bool
    """It may wait for the device."""
    written: int | str | None
    """The argument that it writes to and returns; None: it returns something new."""


@cache
def _kind_of(func: Any) -> Kind:
    written: list[int | str] = []
    if len(func._schema.returns) == 1:
        for place, each in enumerate(func._schema.arguments):
            if each.alias_info is not None and each.alias_info.is_write:
                written.append(each.name if each.kwarg_only else place)
    moves, indexes = func in MOVED, func in INDEXED
    watched = moves or indexes or func in READ or func in SIZED
    return Kind(moves, indexes, watched, written[0] if written else None)


def _check_places(
    func: Any,
    kind: Kind,
    args: Any,
    ours: list[Tensor],
    here: list[Tensor],
    named: dict[str, Any],
) -> None:
    """Raise what torch raises for tensors, or a generator, of the other place."""
    if named.get("generator") is not None:
        _refuse(f"{func} on the device was given a generator on the CPU")
    if not here or not ours or kind.moves:
        return
    if kind.indexes:
        here = [each for each in here if not any(each is index for index in args[1])]
    shapes = [tuple(each.shape) for each in here if each.ndim]  # one number may be on the CPU
    if shapes:
        _refuse(f"{func} on the device was given tensors {shapes} on the CPU")


def _refuse(why: str) -> NoReturn:
    """Raise ``RuntimeError``, and note it for those who wait: code may catch it and go on."""
    _note(f"{REFUSED}: {why}")
    raise RuntimeError(why)


def _why_it_waits(
    func: Any,
    kind: Kind,
    args: Any,
    ours: list[Tensor],
    here: list[Tensor],
    named: dict[str, Any],
    to: bool,
) -> str:
    """The reason to wait for the device, as an end of a sentence; empty: there is none."""
    if kind.moves:
        crosses = bool(ours) != to or (func is not aten._to_copy.default and bool(here))
        queued = to and not isinstance(args[0], OnDevice) and named.get("non_blocking")
        return " between devices" if crosses and not queued else ""
    if not ours:
        return ""
    if kind.indexes:
        indices = [each for each in args[1] if each is not None]
        if any(each.dtype in (torch.bool, torch.uint8) for each in indices):
            return " with a mask"
        return "" if all(isinstance(e, OnDevice) for e in indices) else " with indices on the CPU"
    return " "


def _note(operation: str) -> None:
    if not _noting:
        return
    frame, path, line = sys._getframe(1), [], 0
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith(PACKAGE):
            line = line or frame.f_lineno
            path.append(f"{code.co_filename.removeprefix(PACKAGE)}:{code.co_qualname}")
        frame = frame.f_back
    for each in _noting:
        each.append(Wait(operation.strip(), line, tuple(reversed(path))))


def _of_numbers(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A function that makes tensors of numbers of Python, which are brought over to the device."""

    def made(data: Any, *args: Any, **rest: Any) -> Tensor:
        place = rest.get("device")
        if isinstance(data, Tensor) or place is None or torch.device(place) != PRETENDED:
            return make(data, *args, **rest)
        _note(f"{make.__name__} of numbers")
        return OnDevice(make(data, *args, **{**rest, "device": CPU}))

    return made


def _new_tensor(self: Tensor, data: Any, **rest: Any) -> Tensor:
    return torch.tensor(data, **{"dtype": self.dtype, "device": self.device, **rest})
