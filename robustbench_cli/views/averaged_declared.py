"""Expectation over draws, and a declared backward pass in each of them (Athalye et al., 2018).

https://arxiv.org/abs/1802.00420, sections 4.1 and 4.2.
"""

from dataclasses import dataclass

from torch import nn

from robustbench_cli.models.defended import Backward, with_backward
from robustbench_cli.views import VIEWS, ViewSubject
from robustbench_cli.views.averaged_draws import AveragedDraws, MeanOfDraws


@VIEWS.register("averaged-declared", positional="backward")
@dataclass(frozen=True, kw_only=True)
class AveragedDeclared(AveragedDraws):
    """Average the draws of random input defenses, gradients taking another way through them.

    Called for as ``declared`` is, where the model is randomised.
    """

    backward: Backward = "straight-through"
    """exact, straight-through or smoothed."""

    def build(self, subject: ViewSubject) -> nn.Module | None:
        other = with_backward(subject.model, self.backward) if subject.random else None
        return None if other is None else MeanOfDraws(other, self.draws).eval()
