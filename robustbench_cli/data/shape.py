"""The properties of a data set that a model is built for."""

import torch

from robustbench_cli.data import Dataset, Split
from robustbench_cli.data.stored import StoredImages
from robustbench_cli.models import Shape

SAMPLE = 2000
"""Images that statistics are measured on where there are more than memory should hold."""
_STD_FLOOR = 1e-3
"""Smallest standard deviation, so that a constant channel is not divided by zero."""


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
    decimals.

    Computed from counts of the 256 values: exact in float64, without a float copy of the images.
    """
    if isinstance(split.to("cpu").stored, StoredImages):
        split = split.only(slice(SAMPLE))
    x = split.x
    value = torch.arange(256, dtype=torch.float64) / 255
    mean, std = [], []
    for channel in x.unbind(1):
        if channel.is_floating_point():
            wide = channel.double()
            mean.append(round(float(wide.mean()), 4))
            std.append(max(round(float(wide.std(correction=0)), 4), _STD_FLOOR))
            continue
        share = torch.bincount(channel.reshape(-1), minlength=256).cpu().double() / channel.numel()
        centre = (share * value).sum()
        spread = (share * (value - centre).square()).sum().sqrt()
        mean.append(round(float(centre), 4))
        std.append(max(round(float(spread), 4), _STD_FLOOR))
    return tuple(mean), tuple(std)
