"""Catastrophic overfitting: a net learns to fool the training attack, and no other.

Wong, Rice & Kolter (2020), https://arxiv.org/abs/2001.03994, stop training for it.
"""

from collections.abc import Sequence
from typing import NamedTuple

from robustbench_cli.training.trainer import HistoryRow


class EpochAccuracy(NamedTuple):
    """Accuracies on training images after an epoch, counted from 1."""

    epoch: int
    robust: float
    """Under PGD-10."""
    fooled: float
    """Under the training attack."""


def collapse(history: Sequence[HistoryRow], by: float) -> str | None:
    """What went wrong with the last epoch, in words; None where nothing did.

    Accuracy under PGD is more than ``by`` below that after an earlier epoch while accuracy under
    the training attack is above it, for the first time in this run.  Wong et al. compare with the
    epoch before, under PGD-5: that misses a collapse which takes a few epochs.  A learning rate
    that is too high makes both fall.
    """
    points = _points(history)
    before = _fallen_from(points, by)
    if before is None or any(_fallen_from(points[:i], by) for i in range(len(points))):
        return None
    now = points[-1]
    return (
        f"catastrophic overfitting by epoch {now.epoch}: since epoch {before.epoch} accuracy on "
        f"training images fell from {before.robust:.1%} to {now.robust:.1%} under PGD-10 and rose "
        f"from {before.fooled:.1%} to {now.fooled:.1%} under the training attack"
    )


def blind(history: Sequence[HistoryRow], by: float) -> str | None:
    """Whether a finished run fools its own attack and no other, in words; None where it does not.

    PGD leaves less than a tenth of what the training attack leaves, and ``by`` less.  A net that
    was never robust falls from nowhere, so ``collapse`` has nothing to tell of it.
    """
    points = _points(history)
    if not points or points[-1].epoch != len(history):
        return None
    now = points[-1]
    if now.robust >= now.fooled / 10 or now.fooled - now.robust <= by:
        return None
    return (
        f"it is robust to its own attack only: in the end accuracy on training images is "
        f"{now.fooled:.1%} under the training attack and {now.robust:.1%} under PGD-10"
    )


def _points(history: Sequence[HistoryRow]) -> list[EpochAccuracy]:
    return [
        EpochAccuracy(epoch, float(robust), float(fooled))
        for epoch, row in enumerate(history, 1)
        if (robust := row["train_robust"]) is not None and (fooled := row["batch_adv"]) is not None
    ]


def _fallen_from(points: Sequence[EpochAccuracy], by: float) -> EpochAccuracy | None:
    """The most robust epoch that the last one has fallen from."""
    if not points:
        return None
    *earlier, now = points
    falls = [p for p in earlier if p.robust - now.robust > by and p.fooled < now.fooled]
    return max(falls, key=lambda p: p.robust, default=None)
