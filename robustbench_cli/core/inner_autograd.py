"""Autograd that a model runs in its own forward pass."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch

Engine = Callable[..., Any]
"""Runs a backward pass: roots, their gradients, whether to retain the graph and whether to create
one of the backward pass, and so on."""


@contextmanager
def engine_replaced(replace: Callable[[Engine], Engine]) -> Iterator[None]:
    """Run every backward pass by ``replace(engine)`` while the context is open."""
    # ``torch.autograd.grad`` and ``Tensor.backward`` both end there, however imported.
    autograd: Any = torch.autograd
    engine = autograd._engine_run_backward
    with mock.patch.object(autograd, "_engine_run_backward", replace(engine)):
        yield


@contextmanager
def runs_counted() -> Iterator[list[None]]:
    """Yield a list that gets one entry for each backward pass while the context is open."""
    runs: list[None] = []

    def replace(engine: Engine) -> Engine:
        def counted(*args: Any, **options: Any) -> Any:
            runs.append(None)
            return engine(*args, **options)

        return counted

    with engine_replaced(replace):
        yield runs
