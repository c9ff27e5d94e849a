"""The optional package pytorch-metric-learning, and its random draws, keyed.

Its miners draw from torch's global generator and its sampler from numpy's.  Both are given numbers
that follow from a key (seed, purpose, epoch, batch), and are put back as they were.
"""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from robustbench_cli.core.errors import UserError, install_command
from robustbench_cli.core.example_rng import stream_key


def package_part(name: str) -> Any:
    """Return a module of pytorch-metric-learning: ``losses``, ``miners``, ``samplers``, ...

    Raises:
        UserError: the package is not installed.
    """
    try:
        return importlib.import_module(f"pytorch_metric_learning.{name}")
    except ImportError:
        raise UserError(
            f"metric learning needs pytorch-metric-learning: {install_command('metric')}"
        ) from None


@contextmanager
def keyed_torch(*key: object) -> Iterator[None]:
    """Let torch's global CPU generator draw what follows from ``key``, and put it back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_key(*key))
        yield


@contextmanager
def keyed_numpy(*key: object) -> Iterator[None]:
    """Let the package's source of numpy draws (``NUMPY_RANDOM``) follow from ``key``."""
    common = package_part("utils.common_functions")
    before = common.NUMPY_RANDOM
    common.NUMPY_RANDOM = np.random.RandomState(stream_key(*key) % 2**32)
    try:
        yield
    finally:
        common.NUMPY_RANDOM = before
