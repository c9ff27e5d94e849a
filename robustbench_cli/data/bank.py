"""Other training images for an example: of its own class, of another one, or any."""

import torch
from torch import Tensor

from robustbench_cli.core.example_rng import Noise, stream_generator
from robustbench_cli.data import Split


class Bank:
    """A training set that can be asked by class; on the device of its images."""

    def __init__(self, data: Split) -> None:
        self.data = data
        self._order = data.y.argsort(stable=True)
        self._count = torch.bincount(data.y, minlength=len(data.classes))
        self._first = self._count.cumsum(0) - self._count

    def same(self, y: Tensor, noise: Noise) -> Tensor:
        """One example (B, int64) of each label's class, drawn for each example."""
        return self._order[self._first[y] + self._below(self._count[y], noise.fork("same"))]

    def other(self, y: Tensor, noise: Noise) -> Tensor:
        """One example (B, int64) of any class but each label's."""
        place = self._below(len(self._order) - self._count[y], noise.fork("other"))
        # Those of one class stand together: step over them.
        return self._order[torch.where(place < self._first[y], place, place + self._count[y])]

    def any(self, count: int, *purpose: object) -> Tensor:
        """So many different examples, the same for the same purpose."""
        order = torch.randperm(len(self._order), generator=stream_generator(*purpose, "bank"))
        return order[:count].to(self._order.device)

    def images(self, rows: Tensor) -> Tensor:
        """float32 images in [0, 1], as they are."""
        return self.data.images(rows)

    def labels(self, rows: Tensor) -> Tensor:
        """Their classes."""
        return self.data.y[rows]

    def _below(self, limit: Tensor, noise: Noise) -> Tensor:
        # In float64: float32 could round up to the limit where there are many examples.
        draw = noise.uniform(torch.empty(len(limit), 1, dtype=torch.float64, device=limit.device))
        return (draw.squeeze(1) * limit).long()
