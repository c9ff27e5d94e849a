"""Per-example losses: logits (B, C) in, one number per example (B) out, always in float32 or up.

Low-precision logits are widened first: a cross-entropy in bfloat16 has steps of 1/128.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Criterion = Callable[[Tensor, Tensor], Tensor]
"""(logits, labels) to one loss per example; labels are classes (B) or shares (B, C)."""

KAPPA = 50.0
"""How far past the boundary the papers' "CW-k" still climbs."""


def wide(logits: Tensor) -> Tensor:
    """At least float32; float64 stays as it is, so that oracles can be exact."""
    return logits if logits.dtype == torch.float64 else logits.float()


def soft(y: Tensor, logits: Tensor) -> Tensor:
    """Labels as shares (B, C), of the type and on the device of ``logits``."""
    return y.to(logits) if y.ndim == 2 else F.one_hot(y, logits.shape[1]).to(logits)


def hard(y: Tensor) -> Tensor:
    """Labels as classes (B): the largest share of mixed ones."""
    return y.argmax(1) if y.ndim == 2 else y


def hits(logits: Tensor, y: Tensor) -> Tensor:
    """How much of each label (B) the prediction gets: nothing or all, or a share of a mixed one."""
    answer = logits.argmax(1)
    return y.gather(1, answer[:, None]).squeeze(1) if y.ndim == 2 else answer == y


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """-log softmax(logits)[y], or its mean under shares (B, C); 0 where there is no label."""
    return F.cross_entropy(wide(logits), y, reduction="none")


def kl(logits: Tensor, target: Tensor) -> Tensor:
    """KL(softmax(target) || softmax(logits)), summed over the classes."""
    p, q = F.log_softmax(wide(target), 1), F.log_softmax(wide(logits), 1)
    return F.kl_div(q, p, reduction="none", log_target=True).sum(1)


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """Largest wrong logit minus the true one: positive when misclassified."""
    logits = wide(logits)
    # -inf, not -1000 or -1e4 as in several codes: those are wrong for large logits.
    other = logits.scatter(1, y[:, None], float("-inf")).amax(1)
    return other - picked(logits, y)


def cw_margin(logits: Tensor, y: Tensor) -> Tensor:
    """-max(z_y - max_wrong z + kappa, 0): climbing stops only 50 logits past the boundary.

    Carlini & Wagner (2017), https://arxiv.org/abs/1608.04644, equation f6.
    """
    return margin(logits, y).clamp(max=KAPPA)


def dlr(logits: Tensor, y: Tensor) -> Tensor:
    """Difference of logits ratio, -(z_y - max_wrong z) / (z_(1) - z_(3)); three classes at least.

    Croce & Hein (2020), https://arxiv.org/abs/2003.01690, equation 6.
    """
    logits = wide(logits)
    top = logits.topk(3, dim=1).values
    return margin(logits, y) / (top[:, 0] - top[:, 2] + 1e-12)


def dlr_targeted(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """-(z_y - z_t) / (z_(1) - (z_(3) + z_(4)) / 2); needs four classes (equation 7 there)."""
    logits = wide(logits)
    top = logits.topk(4, dim=1).values
    return lead(logits, y, target) / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + 1e-12)


def lead(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """z_t - z_y: how far one wrong class is ahead of the true one."""
    logits = wide(logits)
    return picked(logits, target) - picked(logits, y)


def picked(logits: Tensor, classes: Tensor) -> Tensor:
    """The logit of one class per example."""
    return logits.gather(1, classes[:, None]).squeeze(1)
