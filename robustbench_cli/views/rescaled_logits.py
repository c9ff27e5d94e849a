"""Rescaled logits, so that no loss saturates (Carlini & Wagner, 2017; Croce & Hein, 2020).

https://arxiv.org/abs/1608.04644, section IV, on defensive distillation, and
https://arxiv.org/abs/2003.01690, section 4.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustbench_cli.core.losses import wide
from robustbench_cli.views import PROBED_IMAGES, VIEWS, View, ViewSubject

WIDEST_GAP, NARROWEST_GAP = 20.0, 0.05
"""Gaps of the two largest logits between which the cross-entropy works as it is in float32."""
_SUM_TOLERANCE = 1e-4


@VIEWS.register("rescaled-logits")
@dataclass(frozen=True, kw_only=True)
class RescaledLogits(View):
    """Divide the logits by the median gap of the two largest ones; take the logarithm of shares.

    Called for where that gap is above 20 or below 0.05, or where the outputs are probabilities or
    percentages.  Predictions stay the same.
    """

    def build(self, subject: ViewSubject) -> nn.Module | None:
        with torch.no_grad():
            logits = wide(subject.model(subject.first(PROBED_IMAGES).x))
        total = _common_sum(logits)
        outputs = logits if total is None else _log_shares(logits, total)
        top = outputs.topk(2, dim=1).values
        gap = float((top[:, 0] - top[:, 1]).median())
        scale = gap if gap > 0 else float(outputs.std())
        if total is None and NARROWEST_GAP <= scale <= WIDEST_GAP:
            return None
        return _Rescaled(subject.model, scale or 1.0, total).eval()


class _Rescaled(nn.Module):
    """Logits divided by ``scale``, after the logarithm where outputs are shares of ``total``."""

    def __init__(self, model: nn.Module, scale: float, total: float | None) -> None:
        super().__init__()
        self.model, self.scale, self.total = model, scale, total

    def forward(self, x: Tensor) -> Tensor:
        logits = wide(self.model(x))
        return (logits if self.total is None else _log_shares(logits, self.total)) / self.scale


def _common_sum(outputs: Tensor) -> float | None:
    """The sum of every row, 1 for probabilities, 100 for percentages; None for logits."""
    if bool((outputs < 0).any()):
        return None
    sums = outputs.sum(1)
    total = float(sums.mean())
    equal = bool(((sums - total).abs() <= _SUM_TOLERANCE * total).all())
    return total if total > 0 and equal else None


def _log_shares(outputs: Tensor, total: float) -> Tensor:
    """The logarithms of shares of ``total``; the smallest number that is not zero for a zero."""
    return (outputs / total).clamp_min(torch.finfo(outputs.dtype).tiny).log()
