"""The entropy of a prediction over the wrong classes, which GCE and COT maximise."""

import torch
from torch import Tensor

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.losses import wide


def complement_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Return the entropy (B), in nats, of the softmax over the wrong classes' logits.

    The logit of the true class has no influence on it.

    Args:
        logits: (B, C).
        y: true labels (B).
    """
    classes = logits.shape[1]
    wrong = (y[:, None] + torch.arange(1, classes, device=y.device)) % classes
    log_shares = wide(logits).gather(1, wrong).log_softmax(1)
    return -(log_shares.exp() * log_shares).sum(1)


def check_wrong_classes(name: str, classes: int) -> None:
    """Check that there are at least two wrong classes.

    Raises:
        UserError: with fewer than 3 classes the entropy over the wrong ones is always zero.
    """
    if classes < 3:
        raise UserError(f"{name} spreads the wrong classes' shares: it needs two, thus 3 classes")
