"""Context managers that put a model into another mode and restore the old one afterwards.

While training, papers attack the network in three ways, which differ in the BatchNorm statistics
that are used and in whether the running statistics are updated with the adversarial batch.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Literal

import torch
from torch import nn

Mode = Literal["eval", "train", "frozen"]
"""BatchNorm uses running statistics (eval), batch statistics and updates the running ones (train),
or batch statistics without updating the running ones (frozen)."""


@contextmanager
def train_mode(model: nn.Module, mode: bool) -> Iterator[None]:
    """Put all modules in training or evaluation mode; restore each one's flag at the end."""
    flags = {module: module.training for module in model.modules()}
    model.train(mode)
    try:
        yield
    finally:
        for module, flag in flags.items():
            module.training = flag


def evaluating(model: nn.Module) -> AbstractContextManager[None]:
    """Put the model in evaluation mode, in which every evaluation attacks and classifies.

    BatchNorm uses its running statistics, and dropout is off.
    """
    return train_mode(model, False)


@contextmanager
def frozen_batchnorm(model: nn.Module) -> Iterator[None]:
    """Put the model in training mode, but leave BatchNorm's running statistics unchanged."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    flags = [norm.track_running_stats for norm in norms]
    with train_mode(model, True):
        for norm in norms:
            norm.track_running_stats = False
        try:
            yield
        finally:
            for norm, tracked in zip(norms, flags, strict=True):
                norm.track_running_stats = tracked


def borrowed(model: nn.Module, mode: Mode) -> AbstractContextManager[None]:
    """Put a model that is being trained in ``mode``, for an attack on it."""
    return {
        "eval": lambda: train_mode(model, False),
        "train": lambda: train_mode(model, True),
        "frozen": lambda: frozen_batchnorm(model),
    }[mode]()


@contextmanager
def full_float32(model: object) -> Iterator[None]:
    """Run the passes of ``model`` in full float32 while the context is open.

    In bfloat16 a number has 8 significant bits, in TF32, which GPUs use for convolutions, 11.
    Differences between predictions at images that are 0.001 apart are smaller than that rounding.

    Args:
        model: a network; a network inside it that trains in bfloat16 counts, too.  Anything but a
            ``torch.nn.Module`` is run as it is.
    """
    modules = model.modules() if isinstance(model, nn.Module) else ()
    narrow = [module for module in modules if getattr(module, "low_precision", False)]
    tf32 = torch.backends.cudnn.allow_tf32
    try:
        torch.backends.cudnn.allow_tf32 = False
        for module in narrow:
            setattr(module, "low_precision", False)  # noqa: B010 - mypy knows no such field
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = tf32
        for module in narrow:
            setattr(module, "low_precision", True)  # noqa: B010
