"""Expectation over draws of a model that also stops the gradient (Athalye et al., 2018).

https://arxiv.org/abs/1802.00420, sections 4.1 and 4.2: both kinds of obfuscated gradients at once.
"""

from dataclasses import dataclass

from torch import nn

from robustbench_cli.views import VIEWS, ViewSubject
from robustbench_cli.views.averaged_draws import AveragedDraws, MeanOfDraws
from robustbench_cli.views.straight_through import StraightThrough
from robustbench_cli.views.surrogate_modules import SurrogateModules
from robustbench_cli.views.unrolled_steps import UnrolledSteps


@VIEWS.register("averaged-straight-through")
@dataclass(frozen=True, kw_only=True)
class AveragedStraightThrough(AveragedDraws):
    """Average the draws of the best of straight-through, surrogate-modules and unrolled-steps.

    Called for where the model is randomised and the gradients of a single draw are not to be
    trusted.
    """

    def build(self, subject: ViewSubject) -> nn.Module | None:
        if not subject.random or subject.gradients.sound:
            return None
        views = (StraightThrough(), SurrogateModules(), UnrolledSteps())
        built = [view for each in views if (view := each.build(subject)) is not None]
        if not built:
            return None
        best = max(built, key=lambda view: subject.gradients_of(view).agreement)
        return MeanOfDraws(best, self.draws).eval()
