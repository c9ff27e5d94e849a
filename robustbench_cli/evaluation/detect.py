"""The model outputs that detectors read, and how well they separate errors from right answers."""

import math

import numpy as np
import torch
from torch import nn

from robustbench_cli.core.examples import Examples
from robustbench_cli.detectors import ModelOutputs
from robustbench_cli.models.taps import EMBEDDING, tapped


@torch.no_grad()
def seen(model: nn.Module, data: Examples, batch: int) -> ModelOutputs:
    """Return the features and logits of all examples, on the CPU, computed ``batch`` at a time.

    Args:
        model: in evaluation mode and float32 (see ``unchanged_model``).
    """
    features, logits = [], []
    for rows in torch.split(torch.arange(len(data.y), device=data.y.device), batch):
        with tapped(model, [EMBEDDING]) as found:
            logits.append(model(data.images(rows)).cpu())
        features.append(found[EMBEDDING].cpu())
    return ModelOutputs(torch.cat(features), torch.cat(logits))


def auroc(suspicion: np.ndarray, wrong: np.ndarray) -> float | None:
    """Return the area under the ROC curve of ``suspicion`` as a detector of wrong answers.

    It is the fraction of pairs, one wrong and one right answer, in which the wrong one is more
    suspicious; ties count half (Mann & Whitney, 1947).

    Args:
        suspicion: one number per answer (N); higher is more suspicious.
        wrong: whether each answer is wrong (N, bool).

    Returns:
        A number in [0, 1]; None where all answers are wrong, or none is.
    """
    errors = int(wrong.sum())
    pairs = errors * (len(wrong) - errors)
    if not pairs:
        return None
    _, place, count = np.unique(suspicion, return_inverse=True, return_counts=True)
    rank = (count.cumsum() - (count - 1) / 2)[place]
    return float((rank[wrong].sum() - errors * (errors + 1) / 2) / pairs)


def flagged_at_most(fpr: float, n: int) -> int:
    """Return how many of ``n`` clean images a threshold at this rate may flag, below ``n``."""
    return min(math.floor(fpr * n + 1e-9), n - 1)


def threshold_at(suspicion: np.ndarray, fpr: float) -> tuple[float, int]:
    """Return the threshold that flags clean images at a rate, and how many of them it flags.

    As many are flagged as the rate allows; where scores are tied, fewer.  The threshold is in the
    middle between the highest score that is accepted and the lowest that is not.

    Args:
        suspicion: the scores of clean images (N), at least one.
        fpr: a share in (0, 1).
    """
    highest = np.sort(suspicion)[::-1][flagged_at_most(fpr, len(suspicion))]
    flagged = suspicion[suspicion > highest]
    lowest = flagged.min() if len(flagged) else highest + spread(suspicion)
    return float(highest + lowest) / 2, len(flagged)


def spread(values: np.ndarray) -> float:
    """Return the interquartile range of values (N), or where that is zero their range, or 1."""
    low, high = np.quantile(values, [0.25, 0.75]).tolist()
    return (high - low) or float(values.max() - values.min()) or 1.0
