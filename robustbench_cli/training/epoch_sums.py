"""Sums over the batches of an epoch: losses and right answers, kept on the device."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from robustbench_cli.defenses._step import Trained
from robustbench_cli.distributed.group import Shard


@dataclass
class EpochSums:
    """The sums so far; reading a mean waits for the device.

    Each process sums over its own rows.  Until the sums are ``combined``, a mean is estimated from
    this process's share, as ``world`` times its sum.
    """

    losses: Tensor
    """The sum of the losses (0-dim, float64)."""
    world: int = 1
    """The number of processes with equal shares of the sums; 1 once they are combined."""
    examples: int = 0
    """The number of examples, those of other processes included."""
    labelled: Tensor | int = 0
    """The number of examples with a label (0-dim)."""
    correct: dict[str, Tensor] = field(default_factory=dict)
    """For each pass, ``clean`` or ``adv``, the number of right answers (0-dim)."""

    def add(self, trained: Trained, y: Tensor) -> None:
        """Add one update on examples with the labels ``y`` (B), -100 where there is none."""
        self.examples += len(y)
        self.losses += trained.loss.double() * len(y)
        self.labelled = (y >= 0).sum() + self.labelled
        for name, right in trained.correct.items():
            self.correct[name] = self.correct.get(name, torch.zeros_like(right)) + right

    def combine(self, shard: Shard) -> None:
        """Add up the sums of all processes."""
        self.correct = {name: right.double() for name, right in self.correct.items()}
        shard.all_reduce_sum_([self.losses, *self.correct.values()])
        self.world = 1

    def loss(self) -> float:
        """Return the mean loss over examples."""
        return self.world * float(self.losses) / self.examples

    def accuracy(self, name: str) -> float | None:
        """Return the fraction of labelled examples that a pass got right; None if it never ran."""
        right = self.correct.get(name)
        if right is None:
            return None
        return self.world * float(right) / max(1, int(self.labelled))
