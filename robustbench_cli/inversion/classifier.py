"""Small classifiers of an auditor or an attacker: one to judge rebuilt images, one to explain."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustbench_cli.core.example_rng import stream_generator
from robustbench_cli.data import Split

_UPDATES, _BATCH, _LR = 600, 128, 1e-3


def fit_classifier(
    model: nn.Module, data: Split, targets: Tensor, label: str, progress: Callable[[int], None]
) -> nn.Module:
    """Train a network by Adam on the cross-entropy with soft labels; return it, frozen.

    Args:
        targets: a distribution over the classes for each image (N, K).
        label: what it is for; the order of the images depends on it.
        progress: called with the updates that are done, of ``classifier_updates``.
    """
    order = stream_generator("classifier", label)
    optimizer = torch.optim.Adam(model.parameters(), _LR)
    model.train()
    for number in range(_UPDATES):
        for group in optimizer.param_groups:
            group["lr"] = _LR * (1 - number / _UPDATES)
        size = min(_BATCH, len(data))
        rows = torch.randperm(len(data), generator=order)[:size].to(data.y.device)
        loss = F.cross_entropy(model(data.images(rows)), targets[rows])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if (number + 1) % 50 == 0:
            progress(number + 1)
    return model.eval().requires_grad_(False)


def classifier_updates() -> int:
    """Return the number of updates that ``fit_classifier`` makes."""
    return _UPDATES
