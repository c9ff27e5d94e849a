"""Full float32 precision: torch's switches for faster, less precise products, all of them off."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch


class _Switch(NamedTuple):
    read: Callable[[], Any]
    set: Callable[[Any], None]
    off: Any


@contextmanager
def float32() -> Iterator[None]:
    """Compute products and convolutions of float32 tensors without TF32 and bfloat16.

    The switches are as they were before once the context is left.
    """
    before = [(switch, _state(switch)) for switch in _switches()]
    for switch, _ in before:
        switch.set(switch.off)
    try:
        yield
    finally:
        for switch, state in before:
            if state is not None:
                switch.set(state)


def _state(switch: _Switch) -> Any:
    """The switch's value; None where torch refuses to read it (an old one whose new one is set)."""
    try:
        return switch.read()
    except RuntimeError:
        return None


def _switches() -> Iterator[_Switch]:
    """All switches, the old ones first: setting one also sets the new ones that belong to it."""
    backends: Any = torch.backends
    yield _Switch(torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "highest")
    yield _attribute(backends.cudnn, "allow_tf32", False)
    if not hasattr(backends.cudnn, "conv"):  # before torch 2.9
        return
    operators = [backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn]
    operators += [getattr(backends.mkldnn, name) for name in ("matmul", "conv", "rnn")]
    for operator in operators:
        yield _attribute(operator, "fp32_precision", "ieee")


def _attribute(owner: Any, name: str, off: Any) -> _Switch:
    return _Switch(partial(getattr, owner, name), partial(setattr, owner, name), off)
