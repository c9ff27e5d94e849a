"""Catastrophic overfitting: a net learns to fool the training attack, and no other.

Wong, Rice & Kolter (2020), https://arxiv.org/abs/2001.03994, stop training for it.
"""

from collections.abc import Sequence
from typing import NamedTuple

from robustbench_cli.engine.train import Row


class Point(NamedTuple):
    """Accuracies on training images after an epoch, counted from 1."""

    epoch: int
    robust: float
    """Under PGD-10."""
    fooled: float
    """Under the training attack."""


def collapse(history: Sequence[Row], by: float) -> str | None:
    """What went wrong with the last epoch, in words; None where nothing did.

    Accuracy under PGD is more than ``by`` below that after an earlier epoch while accuracy under
    the training attack is above it, for the first time in this run.  Wong et al. compare with the
    epoch before, under PGD-5: that misses a collapse which takes a few epochs.  A learning rate
    that is too high makes both fall.
    """
    points = [
        Point(epoch, float(robust), float(fooled))
        for epoch, row in enumerate(history, 1)
        if (robust := row["train_robust"]) is not None and (fooled := row["batch_adv"]) is not None
    ]
    before = _fallen_from(points, by)
    if before is None or any(_fallen_from(points[:i], by) for i in range(len(points))):
        return None
    now = points[-1]
    return (
        f"catastrophic overfitting by epoch {now.epoch}: since epoch {before.epoch} accuracy on "
        f"training images fell from {before.robust:.1%} to {now.robust:.1%} under PGD-10 and rose "
        f"from {before.fooled:.1%} to {now.fooled:.1%} under the training attack"
    )


def _fallen_from(points: Sequence[Point], by: float) -> Point | None:
    """The most robust epoch that the last one has fallen from."""
    if not points:
        return None
    *earlier, now = points
    falls = [p for p in earlier if p.robust - now.robust > by and p.fooled < now.fooled]
    return max(falls, key=lambda p: p.robust, default=None)
