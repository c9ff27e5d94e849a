"""Per-example losses: from logits (B, K) of K classes to one number per example (B).

All of them compute in float32, or in float64 if the logits are float64.  Logits of lower precision
are converted first: a cross-entropy in bfloat16 has a resolution of 1/128.  Labels ``y`` are
classes (B, int64) unless a function says otherwise.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Criterion = Callable[[Tensor, Tensor], Tensor]
"""From logits (B, K) and labels to losses (B); labels are classes (B) or probabilities (B, K)."""

KAPPA = 50.0
"""The confidence margin of the C&W loss in PGD ("CW-k"), in logits (Madry et al., 2018, code)."""


def wide(logits: Tensor) -> Tensor:
    """Return ``logits`` (any shape) in float32; float64 stays, so that tests compare exactly."""
    return logits if logits.dtype == torch.float64 else logits.float()


def soft(y: Tensor, logits: Tensor) -> Tensor:
    """Return labels as probabilities (B, K) in the dtype and on the device of ``logits`` (B, K).

    Args:
        y: classes (B), which become one-hot, or probabilities (B, K).
    """
    return y.to(logits) if y.ndim == 2 else F.one_hot(y, logits.shape[1]).to(logits)


def hard(y: Tensor) -> Tensor:
    """Return labels as classes (B): the argmax of probabilities (B, K)."""
    return y.argmax(1) if y.ndim == 2 else y


def hits(logits: Tensor, y: Tensor) -> Tensor:
    """Return the label's probability of the predicted class (B).

    For labels that are classes (B) it is a bool: whether the prediction is correct.
    """
    answer = logits.argmax(1)
    return y.gather(1, answer[:, None]).squeeze(1) if y.ndim == 2 else answer == y


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Return -log softmax(logits)[y] (B), or its mean under probabilities ``y`` (B, K).

    It is 0 where there is no label (-100, torch's ``ignore_index``).
    """
    return F.cross_entropy(wide(logits), y, reduction="none")


def kl(logits: Tensor, target: Tensor) -> Tensor:
    """Return KL(softmax(target) || softmax(logits)) (B), summed over the classes.

    Args:
        target: logits (B, K) of the reference distribution.
    """
    p, q = F.log_softmax(wide(target), 1), F.log_softmax(wide(logits), 1)
    return F.kl_div(q, p, reduction="none", log_target=True).sum(1)


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """Return max_wrong z - z_y (B), which is positive when the example is misclassified."""
    logits = wide(logits)
    return largest_wrong(logits, y) - picked(logits, y)


def largest_wrong(logits: Tensor, y: Tensor) -> Tensor:
    """Return the largest logit of a wrong class, max_wrong z (B)."""
    # -inf, where several published codes have -1000 or -1e4, which fail for large logits.
    return wide(logits).scatter(1, y[:, None], float("-inf")).amax(1)


def merge_rejection(logits: Tensor, y: Tensor, heeded: Tensor | None = None) -> Tensor:
    """Return logits (B, K) among which an error is an error that is not rejected.

    The true class gets max(z_y, z_reject), so a wrong class leads exactly where it leads both: the
    rejection of an image is no success of an attack.  Every loss of these logits aims at both, as
    the combined logits of Carlini & Wagner (2017), https://arxiv.org/abs/1705.07263, do.

    Args:
        logits: (B, K + 1), of K classes and, last, of the rejection.
        y: true classes (B).
        heeded: whether the gradient of the larger of the two counts, or that of z_y in any case
            (B, bool); None: always the larger.  The values are the same.
    """
    logits = wide(logits)
    true, rejection = picked(logits, y), logits[:, -1]
    if heeded is not None:
        rejection = torch.where(heeded, rejection, true + (rejection - true).detach())
    # Of equal ones the first counts, and the gradient is not shared among them.
    defended = torch.where(rejection > true, rejection, true)
    return logits[:, :-1].scatter(1, y[:, None], defended[:, None])


def cw_margin(logits: Tensor, y: Tensor) -> Tensor:
    """Return min(max_wrong z - z_y, kappa) (B) with kappa = 50.

    Its gradient vanishes only 50 logits past the decision boundary.  Up to the constant kappa it is
    -max(z_y - max_wrong z + kappa, 0), the objective f6 of Carlini & Wagner (2017),
    https://arxiv.org/abs/1608.04644, as Madry et al. (2018) use it in PGD.
    """
    return margin(logits, y).clamp(max=KAPPA)


def dlr(logits: Tensor, y: Tensor) -> Tensor:
    """Return the difference of logits ratio, -(z_y - max_wrong z) / (z_(1) - z_(3)) (B).

    Croce & Hein (2020), https://arxiv.org/abs/2003.01690, equation 6.  It is invariant to shifting
    and scaling the logits, and needs at least three classes.
    """
    logits = wide(logits)
    top = logits.topk(3, dim=1).values
    return margin(logits, y) / (top[:, 0] - top[:, 2] + 1e-12)


def dlr_targeted(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """Return the targeted DLR loss, -(z_y - z_t) / (z_(1) - (z_(3) + z_(4)) / 2) (B).

    Croce & Hein (2020), https://arxiv.org/abs/2003.01690, equation 7.  It needs at least four
    classes.

    Args:
        target: target classes t (B).
    """
    logits = wide(logits)
    top = logits.topk(4, dim=1).values
    return lead(logits, y, target) / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + 1e-12)


def dlr_towards(logits: Tensor, target: Tensor) -> Tensor:
    """Return a DLR loss (B) that is positive where the target t leads every other class.

    It is the targeted one with the largest other logit in place of z_y, as Adversarial Library has
    it.  With three classes, for which that is not defined, it is minus the DLR loss of the target.

    Args:
        target: target classes t (B).
    """
    logits = wide(logits)
    if logits.shape[1] < 4:
        return -dlr(logits, target)
    others = logits.scatter(1, target[:, None], float("-inf"))
    return dlr_targeted(logits, others.argmax(1), target)


def lead(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """Return z_t - z_y (B), the logit of a target class minus that of the true one.

    Args:
        target: target classes t (B).
    """
    logits = wide(logits)
    return picked(logits, target) - picked(logits, y)


def target_or_rest(logits: Tensor, target: Tensor) -> Tensor:
    """Return logits (B, 2) of "another class", the largest of the others, and of the target class.

    The second leads exactly where the target leads every other class.  So an attack that looks for
    an error of the first, as it does for that of a true class, reaches the target.

    Args:
        logits: (B, K).
        target: target classes (B).
    """
    logits = wide(logits)
    return torch.stack([largest_wrong(logits, target), picked(logits, target)], 1)


def complement_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Return the entropy (B), in nats, of the softmax over the wrong classes' logits.

    The logit of the true class has no influence on it.
    """
    classes = logits.shape[1]
    wrong = (y[:, None] + torch.arange(1, classes, device=y.device)) % classes
    log_shares = wide(logits).gather(1, wrong).log_softmax(1)
    return -(log_shares.exp() * log_shares).sum(1)


def guided_complement_entropy(logits: Tensor, y: Tensor, alpha: float = 1 / 3) -> Tensor:
    """Return -p^alpha H / log(K - 1) (B), with p = softmax(logits)[y] and H the entropy above.

    Chen et al. (2019), https://arxiv.org/abs/1903.09799.  It is between -1 and 0, and its gradient
    vanishes where p is 0 or 1.  It needs at least three classes.
    """
    guide = (alpha * picked(F.log_softmax(wide(logits), 1), y)).exp()
    return -guide * complement_entropy(logits, y) / math.log(logits.shape[1] - 1)


def coded_complement_entropy(logits: Tensor, y: Tensor, alpha: float = 0.333) -> Tensor:
    """Return the guided complement entropy (B) as its authors' code computes it, over log(K).

    It works on probabilities and adds 1e-7 and 1e-10 to what might be 0.  Where the class is surer
    than that the shares of the others sum up to less than 1, and raising the loss makes the class
    surer still: https://github.com/henry8527/GCE, GCE.py.
    """
    p = F.softmax(wide(logits), 1)
    true = picked(p, y)
    shares = p / (1 - true + 1e-7)[:, None]
    terms = (shares * torch.log(shares + 1e-10)).scatter(1, y[:, None], 0.0)
    return (true + 1e-7) ** alpha * terms.sum(1) / math.log(logits.shape[1])


def picked(logits: Tensor, classes: Tensor) -> Tensor:
    """Return the logit (B) of one class per example, ``classes`` (B)."""
    return logits.gather(1, classes[:, None]).squeeze(1)
