"""Rescaled logits, so that no loss saturates (Carlini & Wagner, 2017; Croce & Hein, 2020).

https://arxiv.org/abs/1608.04644, section IV, on defensive distillation, and
https://arxiv.org/abs/2003.01690, section 4.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustbench_cli.core.losses import wide
from robustbench_cli.views import PROBED_IMAGES, VIEWS, View, ViewSubject
from robustbench_cli.views._interception import Call, Interception

WIDEST_GAP, NARROWEST_GAP = 20.0, 0.05
"""Gaps of the two largest logits between which the cross-entropy works as it is in float32."""
USUAL_GAP = 5.0
"""The median gap of the rescaled logits, that of an ordinary net."""
_SUM_TOLERANCE = 1e-4
_SOFTMAX = (F.softmax, torch.softmax, torch.Tensor.softmax)


@VIEWS.register("rescaled-logits")
@dataclass(frozen=True, kw_only=True)
class RescaledLogits(View):
    """Scale the logits so that the median gap of the two largest is 5; undo a softmax at the end.

    Called for where that gap is above 20 or below 0.05, or where the outputs are probabilities or
    percentages: then the logits that the model gave its softmax are taken, or the logarithm of the
    outputs where it has none.  Predictions stay the same.
    """

    def build(self, subject: ViewSubject) -> nn.Module | None:
        x = subject.first(PROBED_IMAGES).x
        with torch.no_grad():
            outputs = wide(subject.model(x))
        total = _common_sum(outputs)
        if total is None:
            gap = _gap(outputs)
            called_for = not NARROWEST_GAP <= gap <= WIDEST_GAP
            return _Rescaled(subject.model, USUAL_GAP / gap).eval() if called_for else None
        inner: nn.Module = _BeforeSoftmax(subject.model)
        with torch.no_grad():
            logits = inner(x)
            if logits is None or not torch.equal(logits.argmax(1), outputs.argmax(1)):
                inner = _LogShares(subject.model, total)
                logits = inner(x)
        return _Rescaled(inner, USUAL_GAP / _gap(logits)).eval()


class _Rescaled(nn.Module):
    """Logits multiplied by ``scale``."""

    def __init__(self, model: nn.Module, scale: float) -> None:
        super().__init__()
        self.model, self.scale = model, scale

    def forward(self, x: Tensor) -> Tensor:
        return wide(self.model(x)) * self.scale


class _LogShares(nn.Module):
    """The logarithms of outputs that are shares of ``total``."""

    def __init__(self, model: nn.Module, total: float) -> None:
        super().__init__()
        self.model, self.total = model, total

    def forward(self, x: Tensor) -> Tensor:
        outputs = wide(self.model(x))
        return (outputs / self.total).clamp_min(torch.finfo(outputs.dtype).tiny).log()


class _BeforeSoftmax(nn.Module):
    """What a model gives to its first softmax over the classes; None if there is none."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Any:
        given: list[Tensor] = []

        def record(by: Interception, func: Call, args: Any, kwargs: Any) -> Any:
            given.append(args[0])
            return by.call(func, args, kwargs)

        with Interception(dict.fromkeys(_SOFTMAX, record)):
            outputs = self.model(x)
        return next((wide(each) for each in given if each.shape == outputs.shape), None)


def _gap(logits: Tensor) -> float:
    """The median gap of the two largest logits; their deviation where that is zero."""
    top = logits.topk(2, dim=1).values
    return float((top[:, 0] - top[:, 1]).median()) or float(logits.std()) or 1.0


def _common_sum(outputs: Tensor) -> float | None:
    """The sum of every row, 1 for probabilities, 100 for percentages; None for logits."""
    if bool((outputs < 0).any()):
        return None
    sums = outputs.sum(1)
    total = float(sums.mean())
    equal = bool(((sums - total).abs() <= _SUM_TOLERANCE * total).all())
    return total if total > 0 and equal else None
