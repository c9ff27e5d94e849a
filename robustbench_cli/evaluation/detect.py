"""What detectors see of a model, and how well they tell its errors from its right answers."""

import numpy as np
import torch
from torch import nn

from robustbench_cli.attacks import Examples
from robustbench_cli.detectors import ModelOutputs
from robustbench_cli.models.taps import EMBEDDING, tapped


@torch.no_grad()
def seen(model: nn.Module, data: Examples, batch: int) -> ModelOutputs:
    """What a model makes of all examples, ``batch`` at a time; on the CPU.

    Args:
        model: in evaluation mode and float32 (see ``judging``).
    """
    features, logits = [], []
    for rows in torch.split(torch.arange(len(data.y), device=data.y.device), batch):
        with tapped(model, [EMBEDDING]) as found:
            logits.append(model(data.images(rows)).cpu())
        features.append(found[EMBEDDING].cpu())
    return ModelOutputs(torch.cat(features), torch.cat(logits))


def auroc(suspicion: np.ndarray, wrong: np.ndarray) -> float | None:
    """The share of pairs, one wrong and one right, in which the wrong one is more suspicious.

    Ties count half (Mann & Whitney, 1947).  None where all are wrong, or none.

    Args:
        suspicion: of each answer (N).
        wrong: whether it is (N).
    """
    errors = int(wrong.sum())
    pairs = errors * (len(wrong) - errors)
    if not pairs:
        return None
    _, place, count = np.unique(suspicion, return_inverse=True, return_counts=True)
    rank = (count.cumsum() - (count - 1) / 2)[place]
    return float((rank[wrong].sum() - errors * (errors + 1) / 2) / pairs)
