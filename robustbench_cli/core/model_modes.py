"""Borrow a model in another mode and give it back as it was.

The literature attacks a network in training in three ways (they differ in which BatchNorm
statistics are used, and in whether the running ones remember the adversarial batch).
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Literal

from torch import nn

Mode = Literal["eval", "train", "frozen"]
"""BatchNorm uses running statistics, batch ones, or batch ones without remembering them."""


@contextmanager
def train_mode(model: nn.Module, mode: bool) -> Iterator[None]:
    """The whole tree in training or evaluation mode; each module's own flag is restored."""
    was = {module: module.training for module in model.modules()}
    model.train(mode)
    try:
        yield
    finally:
        for module, flag in was.items():
            module.training = flag


def evaluating(model: nn.Module) -> AbstractContextManager[None]:
    """Running statistics, no dropout: how every model is attacked and judged."""
    return train_mode(model, False)


@contextmanager
def frozen_batchnorm(model: nn.Module) -> Iterator[None]:
    """Training mode, normalising by batch statistics, but the running ones are left alone."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    was = [norm.track_running_stats for norm in norms]
    with train_mode(model, True):
        for norm in norms:
            norm.track_running_stats = False
        try:
            yield
        finally:
            for norm, tracked in zip(norms, was, strict=True):
                norm.track_running_stats = tracked


def borrowed(model: nn.Module, mode: Mode) -> AbstractContextManager[None]:
    """A model being trained, lent to an attack."""
    return {
        "eval": lambda: train_mode(model, False),
        "train": lambda: train_mode(model, True),
        "frozen": lambda: frozen_batchnorm(model),
    }[mode]()
