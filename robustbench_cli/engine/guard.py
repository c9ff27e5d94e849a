"""Catastrophic overfitting: a net learns to fool the training attack, and no other.

Wong, Rice & Kolter (2020), https://arxiv.org/abs/2001.03994, stop training for it.
"""

from collections.abc import Sequence

from robustbench_cli.engine.train import Row


def collapse(history: Sequence[Row], by: float) -> str | None:
    """What went wrong in the last epoch, in words; None where nothing did.

    On training images, accuracy under PGD fell by more than ``by`` while accuracy under the
    training attack rose.  (Wong et al. look at the fall alone, under PGD-5.  A learning rate that
    is too high makes both fall.)
    """
    robust = [row["train_robust"] for row in history[-2:]]
    fooled = [row["batch_adv"] for row in history[-2:]]
    match robust, fooled:
        case [float(before), float(now)], [float(low), float(high)] if (
            before - now > by and high > low
        ):
            return (
                f"catastrophic overfitting in epoch {len(history)}: on training images accuracy "
                f"fell from {before:.1%} to {now:.1%} under PGD-10 and rose from {low:.1%} to "
                f"{high:.1%} under the training attack"
            )
    return None
