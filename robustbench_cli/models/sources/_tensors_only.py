"""Weights that other packages load: as tensors, whatever the package asks for."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

_SWITCH = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


@contextmanager
def tensors_only() -> Iterator[None]:
    """Let ``torch.load`` read tensors only while the context is open, so that no code is run."""
    before = os.environ.get(_SWITCH)
    os.environ[_SWITCH] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_SWITCH]
        else:
            os.environ[_SWITCH] = before
