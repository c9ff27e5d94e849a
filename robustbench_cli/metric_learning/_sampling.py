"""Class-balanced batches, from pytorch-metric-learning's ``MPerClassSampler``."""

import torch
from torch import Tensor

from robustbench_cli.core.errors import UserError
from robustbench_cli.metric_learning._package import keyed_numpy, package_part


def balanced_batches(
    y: Tensor, per_class: int, batch_size: int, key: tuple[object, ...]
) -> list[Tensor]:
    """Return the batches of an epoch: rows (B) int64, ``per_class`` of each class in turn.

    The sampler's own batches need as many classes as ``batch_size / per_class``, which ten digits
    do not have.  So it draws one sequence, in which every class comes once, in random order, before
    any comes again, and that is cut into batches.

    Args:
        y: labels (N).
        per_class: images of a class that come together.
        key: what the draws follow from.

    Raises:
        UserError: all images are of one class, or the package is not installed.
    """
    classes = int(torch.bincount(y).count_nonzero())
    if classes < 2:
        raise UserError("metric learning tells classes apart, and all training images are of one")
    once_through = per_class * classes
    wanted = max(1, len(y) // batch_size) * batch_size
    with keyed_numpy("batches", *key):
        # Its length must be a whole number of rounds over the classes, or it is cut to one.
        sampler = package_part("samplers").MPerClassSampler(
            y.cpu(), per_class, length_before_new_iter=-(-wanted // once_through) * once_through
        )
        rows = torch.tensor([int(row) for row in sampler])
    return list(torch.split(rows[:wanted], batch_size))
