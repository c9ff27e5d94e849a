"""The choice between several ways to give a model other gradients."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from robustbench_cli.core.losses import wide
from robustbench_cli.core.same_draws import same_draws
from robustbench_cli.models.bpda import bpda
from robustbench_cli.views import PROBED_IMAGES, ViewSubject
from robustbench_cli.views._gradients import margin_gradient

_GAIN = 0.02
"""The gain in agreement for which gradients that can be trusted are exchanged all the same."""
_SAME_DIRECTION = 0.98
"""The cosine from which on two gradients are the same."""
_EXACT = 1e-5
"""The largest relative difference of logits by which a pass is still the model's own."""


def best_of(
    candidates: Iterable[nn.Module], subject: ViewSubject, enough: bool = False
) -> nn.Module | None:
    """Return the candidate whose gradients agree best with what the model answers.

    Args:
        candidates: models that answer as the model of ``subject`` does, with other gradients.
        enough: whether to stop at the first whose gradients are sound.

    Returns:
        None where the model's own gradients are as good, or where no candidate can be run.
    """
    own = subject.gradients
    few = subject.first(PROBED_IMAGES)
    start = few.threat.random_start(few.x, few.noise.fork("start of views"))
    plain = margin_gradient(subject.model, start, few.y)
    found = []
    for candidate in candidates:
        try:
            grad = margin_gradient(candidate, start, few.y)
            if not _differs(plain, grad):
                continue
            found.append((subject.gradients_of(candidate), candidate))
            if enough and found[-1][0].sound:
                break
        except Exception:  # it runs the user's code in a way that it was not written for
            continue
    found = [each for each in found if each[0].unusable < 1]
    if not found:
        return None
    quality, best = max(found, key=lambda each: each[0].agreement)
    if own.sound and quality.agreement < own.agreement + _GAIN:
        return None
    return best.eval() if _answers_alike(best, subject.model, start) else bpda(subject.model, best)


def _differs(plain: Tensor, other: Tensor) -> bool:
    """True if more than one image in twenty has another gradient (B, C, H, W)."""
    a, b = plain.flatten(1), other.flatten(1)
    cosine = torch.nn.functional.cosine_similarity(a, b)
    same = (cosine > _SAME_DIRECTION) | (~a.any(1) & ~b.any(1))
    return float((~same).float().mean()) > 0.05


def _answers_alike(candidate: nn.Module, model: nn.Module, x: Tensor) -> bool:
    """True if a pass with gradients gives the model's own logits."""
    with torch.enable_grad(), same_draws():
        logits = wide(candidate(x.clone().requires_grad_()).detach())
    with torch.no_grad(), same_draws():
        expected = wide(model(x))
    return bool((logits - expected).abs().max() <= _EXACT * (1 + expected.abs().max()))
