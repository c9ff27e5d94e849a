"""Catastrophic overfitting: a net becomes robust to the training attack and to no other.

Wong, Rice & Kolter (2020), https://arxiv.org/abs/2001.03994, describe it and stop training.
"""

from collections.abc import Sequence
from typing import NamedTuple

from robustbench_cli.training.trainer import HistoryRow


class EpochAccuracy(NamedTuple):
    """Accuracies on training images after an epoch, in [0, 1]."""

    epoch: int
    """Counted from 1."""
    robust: float
    """Under PGD-10."""
    training: float
    """Under the training attack."""


def collapse(history: Sequence[HistoryRow], by: float) -> str | None:
    """Return a message if the last epoch shows catastrophic overfitting; None if it does not.

    It does if the accuracy under PGD-10 is more than ``by`` below that after an earlier epoch while
    the accuracy under the training attack is above it, for the first time in this run.  Wong et al.
    compare with the epoch before, under PGD-5: that misses a collapse which takes a few epochs.  A
    learning rate that is too high is something else: it makes both fall.

    Args:
        by: a difference of accuracies, in [0, 1].
    """
    points = _accuracies(history)
    before = _epoch_before_collapse(points, by)
    if before is None or any(_epoch_before_collapse(points[:i], by) for i in range(len(points))):
        return None
    now = points[-1]
    return (
        f"catastrophic overfitting by epoch {now.epoch}: since epoch {before.epoch} accuracy on "
        f"training images fell from {before.robust:.1%} to {now.robust:.1%} under PGD-10 and rose "
        f"from {before.training:.1%} to {now.training:.1%} under the training attack"
    )


def blind(history: Sequence[HistoryRow], by: float) -> str | None:
    """Return a message if a finished run is robust to its own attack only; None if it is not.

    It is if the accuracy under PGD-10 is less than a tenth of that under the training attack, and
    more than ``by`` below it.  ``collapse`` cannot notice a net that was never robust.

    Args:
        by: a difference of accuracies, in [0, 1].
    """
    points = _accuracies(history)
    if not points or points[-1].epoch != len(history):
        return None
    now = points[-1]
    if now.robust >= now.training / 10 or now.training - now.robust <= by:
        return None
    return (
        f"it is robust to its own attack only: in the end accuracy on training images is "
        f"{now.training:.1%} under the training attack and {now.robust:.1%} under PGD-10"
    )


def _accuracies(history: Sequence[HistoryRow]) -> list[EpochAccuracy]:
    """The epochs at which both accuracies were measured."""
    found = []
    for epoch, row in enumerate(history, 1):
        robust, training = row["train_robust"], row["batch_adv"]
        if robust is not None and training is not None:
            found.append(EpochAccuracy(epoch, float(robust), float(training)))
    return found


def _epoch_before_collapse(points: Sequence[EpochAccuracy], by: float) -> EpochAccuracy | None:
    """The most robust epoch compared with which the last one has collapsed; None: there is none."""
    if not points:
        return None
    *earlier, now = points
    falls = [p for p in earlier if p.robust - now.robust > by and p.training < now.training]
    return max(falls, key=lambda p: p.robust, default=None)
