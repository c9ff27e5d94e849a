"""Per-example losses: logits (B, C) in, one number per example (B) out, always in float32 or up.

Low-precision logits are widened first: a cross-entropy in bfloat16 has steps of 1/128.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Criterion = Callable[[Tensor, Tensor], Tensor]
"""(logits, labels) to one loss per example."""


def wide(logits: Tensor) -> Tensor:
    """At least float32; float64 stays as it is, so that oracles can be exact."""
    return logits if logits.dtype == torch.float64 else logits.float()


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """-log softmax(logits)[y]."""
    return F.cross_entropy(wide(logits), y, reduction="none")


def kl(logits: Tensor, target: Tensor) -> Tensor:
    """KL(softmax(target) || softmax(logits)), summed over the classes."""
    p, q = F.log_softmax(wide(target), 1), F.log_softmax(wide(logits), 1)
    return F.kl_div(q, p, reduction="none", log_target=True).sum(1)


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """Largest wrong logit minus the true one: positive when misclassified."""
    logits = wide(logits)
    true = logits.gather(1, y[:, None])
    # -inf, not -1000 or -1e4 as in several codes: those are wrong for large logits.
    other = logits.scatter(1, y[:, None], float("-inf")).amax(1, keepdim=True)
    return (other - true).squeeze(1)
