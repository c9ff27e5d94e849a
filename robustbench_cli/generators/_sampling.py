"""Images of generators: which classes are drawn, and how numbers become pixels."""

from collections.abc import Mapping

import torch
from torch import Tensor

from robustbench_cli.core.example_rng import Noise
from robustbench_cli.data import Split
from robustbench_cli.generators import Generator

DRAWN_TOGETHER = 128
"""Images that are drawn together."""


def unseen(train: Split, test: Split) -> Split:
    """The training images that are not in the test split, too."""
    known = {image.tobytes() for image in test.x.numpy()}
    return train.only(torch.tensor([image.tobytes() not in known for image in train.x.numpy()]))


def learned(generator: Generator, train: Split) -> dict[str, Tensor]:
    """What a generator learns, and how many training images each class has (``counts``)."""
    return {**generator.fit(train), "counts": torch.bincount(train.y, minlength=len(train.classes))}


def sampled(
    generator: Generator, known: Mapping[str, Tensor], n: int, seed: int
) -> tuple[Tensor, Tensor]:
    """``n`` images, uint8 (N, C, H, W), and their classes, int64 (N), as frequent as in training.

    The same seed gives the same first images, whatever ``n``.
    """
    images, labels = [], []
    for first in range(0, n, DRAWN_TOGETHER):
        # Whole batches even at the end: sums of another shape are rounded otherwise.
        noise = Noise(seed, torch.arange(first, first + DRAWN_TOGETHER), "synth")
        y = _classes(known["counts"], noise)
        x = generator.draw(known, y, noise.fork("image"))
        images.append((x.clamp(0, 1) * 255).round().to(torch.uint8))
        labels.append(y)
    return torch.cat(images)[:n], torch.cat(labels)[:n]


def _classes(counts: Tensor, noise: Noise) -> Tensor:
    """The class (B) of one training image drawn for each example."""
    draw = noise.fork("class").uniform(torch.empty(len(noise.ids), 1, dtype=torch.float64))
    place = (draw.squeeze(1) * counts.sum()).long()
    return torch.searchsorted(counts.cumsum(0), place, right=True)
