"""A second set of training images beside the labelled one: unlabelled, or generated."""

from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_cli.data import Split
from robustbench_cli.noise import generator

UNLABELLED = -100
"""The label of an example that has none: cross-entropy passes over it."""


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Extra examples, drawn anew for each batch, uniformly and with replacement.

    Carmon et al. (2019), https://arxiv.org/abs/1905.13736, fill each batch up with them: a pool
    ten times as large as the labelled set weighs no more than its share of the batch.
    """

    data: Split
    share: float
    """How much of each batch comes from the pool."""
    first: int
    """The id of its first example, for noise: ids go on where the labelled ones end."""

    def room(self, batch_size: int) -> int:
        """How many labelled examples a batch takes."""
        return max(1, batch_size - round(self.share * batch_size))

    def draw(self, count: int, *purpose: object) -> Tensor:
        """Which examples (int64) fill up one batch."""
        return torch.randint(len(self.data), (count,), generator=generator(*purpose, "pool"))
