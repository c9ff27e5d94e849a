"""The properties of a data set that a model is built for."""

import torch
from torch import Tensor

from robustbench_cli.data import Dataset, Split
from robustbench_cli.data.stored import StoredImages
from robustbench_cli.models import Shape

SAMPLE = 2000
"""Images that statistics are measured on where there are more than memory should hold."""
_STD_FLOOR = 1e-3
"""Smallest standard deviation, so that a constant channel is not divided by zero."""
_AT_ONCE = 256
"""Images that are in memory at a time."""


def shape_of(dataset: Dataset, train: Split) -> Shape:
    """Return image size, classes, and channel statistics for pixels in [0, 1].

    The statistics are the published ones of ``dataset``, else those measured on ``train``: on all
    of it, or where it is too large for memory on its first ``SAMPLE`` images.
    """
    channels, height, width = train.image_shape
    if dataset.mean is not None and dataset.std is not None:
        mean, std = dataset.mean, dataset.std
    else:
        mean, std = _statistics(train)
    return Shape(channels, height, width, len(train.classes), mean, std)


def _statistics(split: Split) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of every channel, for pixels in [0, 1], rounded to four
    decimals."""
    stored = split.to("cpu").stored
    if isinstance(stored, StoredImages):
        stored = stored.only(slice(SAMPLE))
    parts = [slice(first, first + _AT_ONCE) for first in range(0, len(stored), _AT_ONCE)]
    totals = torch.stack([_totals(stored[part]) for part in parts]).sum(0)
    count = len(stored) * stored.shape[2] * stored.shape[3]
    centres = totals[0] / count
    spreads = (totals[1] / count - centres.square()).clamp(min=0).sqrt()
    mean = tuple(round(value, 4) for value in centres.tolist())
    return mean, tuple(max(round(value, 4), _STD_FLOOR) for value in spreads.tolist())


def _totals(x: Tensor) -> Tensor:
    """Return the sums of the values and of their squares for every channel (2, C), in float64.

    Of bytes they come from counts of the 256 values: exact, without a float copy of the images.
    """
    channels = [channel.reshape(-1) for channel in x.unbind(1)]
    if x.is_floating_point():
        wide = torch.stack(channels).double()
        return torch.stack([wide.sum(1), wide.square().sum(1)])
    value = torch.arange(256, dtype=torch.float64) / 255
    counts = torch.stack([torch.bincount(each, minlength=256) for each in channels]).double()
    return torch.stack([counts @ value, counts @ value.square()])
