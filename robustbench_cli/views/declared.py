"""The backward passes that input defenses declare (Athalye et al., 2018).

https://arxiv.org/abs/1802.00420, backward pass differentiable approximation; that every way through
a defense should be tried is an advice of Tramer et al. (2020), https://arxiv.org/abs/2002.08347.
"""

from dataclasses import dataclass

from torch import nn

from robustbench_cli.models.defended import Backward, with_backward
from robustbench_cli.views import VIEWS, View, ViewSubject


@VIEWS.register("declared", positional="backward")
@dataclass(frozen=True, kw_only=True)
class Declared(View):
    """Take the gradient another way through the input defenses in front of the model.

    Those that do not declare this way keep their own.  Called for where a model is behind defenses,
    one of them declares it, and gradients do not take it anyway; on a randomised model the search
    on the average of draws is made instead.
    """

    backward: Backward = "straight-through"
    """exact, straight-through or smoothed."""

    def build(self, subject: ViewSubject) -> nn.Module | None:
        return None if subject.random else with_backward(subject.model, self.backward)
