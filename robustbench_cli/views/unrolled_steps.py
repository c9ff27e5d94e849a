"""Gradient steps in the forward pass, differentiated through (Tramer et al., 2020).

https://arxiv.org/abs/2002.08347: a defense that optimises its input is attacked end to end; for
purification at test time by Croce et al. (2022), https://arxiv.org/abs/2202.13711.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from robustbench_cli.core.inner_autograd import runs_counted
from robustbench_cli.views import PROBED_IMAGES, VIEWS, View, ViewSubject
from robustbench_cli.views._choice import best_of
from robustbench_cli.views._interception import Intercepted
from robustbench_cli.views._rules import SMOOTH_ACTIVATIONS, STRAIGHT_THROUGH


@VIEWS.register("unrolled-steps")
@dataclass(frozen=True, kw_only=True)
class UnrolledSteps(View):
    """Differentiate through the gradient steps that a model takes in its forward pass.

    The gradient of the model's own gradients is taken, too; everything else is as in
    ``straight-through``, which skips these steps.  Called for where autograd runs in the forward
    pass, at most ``most`` times, and the model's gradient is not to be trusted.
    """

    most: Annotated[int, Field(ge=1)] = 32
    """The largest number of steps; the memory that it takes grows with them."""

    def build(self, subject: ViewSubject) -> nn.Module | None:
        with torch.no_grad(), runs_counted() as runs:
            subject.model(subject.first(PROBED_IMAGES).x)
        if not 0 < len(runs) <= self.most or subject.gradients.sound:
            return None
        return best_of(self._candidates(subject.model), subject, enough=True)

    def _candidates(self, model: nn.Module) -> Iterator[nn.Module]:
        for rules in (STRAIGHT_THROUGH, SMOOTH_ACTIVATIONS):
            yield Intercepted(model, rules, inner_graphs=True)
