"""How evenly predictions are spread over the wrong classes."""

import torch
from torch import Tensor

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.losses import wide


def complement_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """The entropy (B) of the predictions over the wrong classes, logits (B, C), labels (B).

    It does not depend on the true class's logit.
    """
    classes = logits.shape[1]
    wrong = (y[:, None] + torch.arange(1, classes, device=y.device)) % classes
    log_shares = wide(logits).gather(1, wrong).log_softmax(1)
    return -(log_shares.exp() * log_shares).sum(1)


def check_wrong_classes(name: str, classes: int) -> None:
    """Raise ``UserError`` unless predictions over the wrong classes have an entropy."""
    if classes < 3:
        raise UserError(f"{name} spreads the wrong classes' shares: it needs two, thus 3 classes")
