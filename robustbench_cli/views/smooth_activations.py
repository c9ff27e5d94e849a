"""Smooth activations in the backward pass only (Xie et al., 2020; Tramer et al., 2020).

https://arxiv.org/abs/2006.14536 and, on k-winners-take-all, https://arxiv.org/abs/2002.08347.
"""

from dataclasses import dataclass

from torch import nn

from robustbench_cli.views import VIEWS, View, ViewSubject
from robustbench_cli.views._choice import best_of
from robustbench_cli.views._interception import Intercepted
from robustbench_cli.views._rules import SMOOTH_ACTIVATIONS


@VIEWS.register("smooth-activations")
@dataclass(frozen=True, kw_only=True)
class SmoothActivations(View):
    """Give activations that saturate or are switched off a gradient, besides straight-through.

    Rectified units leak, sigmoids and tanh saturate slowly, k-winners-take-all compares smoothly;
    in the backward pass only.  Called for where that changes a gradient that is not to be trusted.
    """

    def build(self, subject: ViewSubject) -> nn.Module | None:
        return best_of([Intercepted(subject.model, SMOOTH_ACTIVATIONS)], subject)
