"""Straight-through gradients where a model stops them (Athalye et al., 2018).

https://arxiv.org/abs/1802.00420, backward pass differentiable approximation; the straight-through
estimator is by Bengio et al. (2013), https://arxiv.org/abs/1308.3432.
"""

from dataclasses import dataclass

from torch import nn

from robustbench_cli.views import VIEWS, View, ViewSubject
from robustbench_cli.views._choice import best_of
from robustbench_cli.views._interception import Intercepted
from robustbench_cli.views._rules import STRAIGHT_THROUGH, STRAIGHT_THROUGH_WITH_REMAINDERS


@VIEWS.register("straight-through")
@dataclass(frozen=True, kw_only=True)
class StraightThrough(View):
    """Let the gradient through rounding, comparisons, detached tensors and custom backward passes.

    Rounding and conversions get the gradient of the identity, comparisons that of a smooth step,
    remainders none; ``detach`` and ``no_grad`` have no effect, and a custom autograd function gets
    the gradient of what it computes.  A model that improves its image by gradient steps in its
    forward pass is passed through as if it left the image alone.  What the model computes stays the
    same.  Called for where that changes a gradient that is not to be trusted.
    """

    def build(self, subject: ViewSubject) -> nn.Module | None:
        rules = (STRAIGHT_THROUGH, STRAIGHT_THROUGH_WITH_REMAINDERS)
        return best_of([Intercepted(subject.model, each) for each in rules], subject)
