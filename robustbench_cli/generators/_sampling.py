"""Fitting generators and sampling data sets of 8-bit images from them."""

from collections.abc import Mapping

import torch
from torch import Tensor

from robustbench_cli.core.example_rng import Noise
from robustbench_cli.data import Split
from robustbench_cli.generators import Generator

BATCH_SIZE = 128
"""Images drawn at a time."""


def unseen(train: Split, test: Split) -> Split:
    """Return the training images that do not also occur in the test split."""
    known = {image.tobytes() for image in test.x.numpy()}
    return train.only(torch.tensor([image.tobytes() not in known for image in train.x.numpy()]))


def learned(generator: Generator, train: Split) -> dict[str, Tensor]:
    """Return what the generator estimates, and the images per class as ``counts`` (K, int64)."""
    return {**generator.fit(train), "counts": torch.bincount(train.y, minlength=len(train.classes))}


def sampled(
    generator: Generator, known: Mapping[str, Tensor], n: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Sample ``n`` images and labels with classes drawn at their frequencies in the training set.

    With the same seed the first images are the same for every ``n``.

    Args:
        known: the result of ``learned``.

    Returns:
        Images, uint8 (n, C, H, W), and their classes, int64 (n).
    """
    images, labels = [], []
    for first in range(0, n, BATCH_SIZE):
        # Full batches even at the end, because sums over other shapes may be rounded differently.
        noise = Noise(seed, torch.arange(first, first + BATCH_SIZE), "synth")
        y = _classes(known["counts"], noise)
        x = generator.draw(known, y, noise.fork("image"))
        images.append((x.clamp(0, 1) * 255).round().to(torch.uint8))
        labels.append(y)
    return torch.cat(images)[:n], torch.cat(labels)[:n]


def _classes(counts: Tensor, noise: Noise) -> Tensor:
    """Return the class (B) of a training image drawn uniformly for each id of ``noise``."""
    draw = noise.fork("class").uniform(torch.empty(len(noise.ids), 1, dtype=torch.float64))
    place = (draw.squeeze(1) * counts.sum()).long()
    return torch.searchsorted(counts.cumsum(0), place, right=True)
