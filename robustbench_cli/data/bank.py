"""Random training images of the same class as an example, of another class, or of any."""

import torch
from torch import Tensor

from robustbench_cli.core.example_rng import Noise, stream_generator
from robustbench_cli.core.transfer import sent
from robustbench_cli.data import Split


class Bank:
    """A training set indexed by class; indices are on the device of its images."""

    def __init__(self, data: Split) -> None:
        """Index a training set.

        Args:
            data: without unlabelled examples.
        """
        self.data = data
        self._order = data.y.argsort(stable=True)
        self._count = torch.bincount(data.y, minlength=len(data.classes))
        self._first = self._count.cumsum(0) - self._count

    def same(self, y: Tensor, noise: Noise) -> Tensor:
        """Return the index (B) int64 of a random training image of each label's class.

        Args:
            y: labels (B).
            noise: keyed by example.
        """
        return self._order[self._first[y] + self._below(self._count[y], noise.fork("same"))]

    def other(self, y: Tensor, noise: Noise) -> Tensor:
        """Return the index (B) int64 of a random training image of another class than each label's.

        Args:
            y: labels (B).
            noise: keyed by example.
        """
        place = self._below(len(self._order) - self._count[y], noise.fork("other"))
        # The order is sorted by class: skip the block of the label's class.
        return self._order[torch.where(place < self._first[y], place, place + self._count[y])]

    def any(self, count: int, *purpose: object) -> Tensor:
        """Return ``count`` different random indices (count) int64.

        Args:
            purpose: keys of the random stream; the same keys give the same indices.
        """
        order = torch.randperm(len(self._order), generator=stream_generator(*purpose, "bank"))
        return sent(order[:count], self._order.device)

    def images(self, rows: Tensor) -> Tensor:
        """Return the images at ``rows``, float32 (B, C, H, W) in [0, 1], without augmentation."""
        return self.data.images(rows)

    def labels(self, rows: Tensor) -> Tensor:
        """Return the labels at ``rows``, int64 (B)."""
        return self.data.y[rows]

    def _below(self, limit: Tensor, noise: Noise) -> Tensor:
        # float64, because float32 could round up to the limit where there are many examples.
        """Return a random integer (B) from 0 to ``limit`` (B) exclusive, uniformly."""
        draw = noise.uniform(torch.empty(len(limit), 1, dtype=torch.float64, device=limit.device))
        return (draw.squeeze(1) * limit).long()
