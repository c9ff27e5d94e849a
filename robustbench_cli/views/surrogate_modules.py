"""Surrogates for the parts of a model that stop the gradient (Athalye et al., 2018).

https://arxiv.org/abs/1802.00420, section 4.1, backward pass differentiable approximation: the
identity where a part returns about what it is given, else a function fitted to it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from robustbench_cli.core.same_draws import same_draws
from robustbench_cli.views import VIEWS, View, ViewSubject
from robustbench_cli.views._choice import best_of
from robustbench_cli.views._gaps import Bridged, Gap, find_gaps, pairs
from robustbench_cli.views._rules import STRAIGHT_THROUGH
from robustbench_cli.views._surrogates import linear, passed_through, small_net

_LOOKED_AT = 16
"""Images on which a model is searched for gaps."""
_BATCH = 64


@VIEWS.register("surrogate-modules")
@dataclass(frozen=True, kw_only=True)
class SurrogateModules(View):
    """Find the parts of a model that stop the gradient by hooks, and give them another one.

    A part lies between two sites where modules begin or end: it changes with the image while its
    gradient is none, not finite, or contradicts that.  What is in it does not matter: numpy, a
    look-up, a coder.  In the backward pass it becomes the identity where shapes agree, or a linear
    map or a small net that is fitted to what goes in and comes out for noisy images; whichever
    agrees best with the answers.  Called for where gradients are not to be trusted.
    """

    most: Annotated[int, Field(ge=1)] = 3
    """The largest number of parts that are replaced."""
    samples: Annotated[int, Field(ge=64)] = 1024
    """Noisy images to which a surrogate is fitted."""

    def build(self, subject: ViewSubject) -> nn.Module | None:
        if subject.gradients.sound:
            return None
        with same_draws():
            return best_of(self._candidates(subject), subject, enough=True)

    def _candidates(self, subject: ViewSubject) -> Iterator[nn.Module]:
        """Yield the model with the first gap bridged, the first two, and so on, for each fit.

        Where bridges do not reach the logits, functions that stop the gradient are replaced, too.
        """
        images = self._noisy(subject)
        for rules in (None, STRAIGHT_THROUGH):
            try:
                gaps = find_gaps(subject.model, rules, subject.first(_LOOKED_AT), self.most)
                known = {gap: pairs(subject.model, gap, images) for gap in gaps.found}
            except Exception:  # it runs the user's code in a way that it was not written for
                continue
            for fit in (passed_through, linear, small_net):
                bridges: dict[Gap, nn.Module] = {}
                for gap in gaps.found:
                    bridges[gap] = fit(*known[gap])
                    yield Bridged(subject.model, rules, bridges)
            if gaps.found and gaps.complete:
                return

    def _noisy(self, subject: ViewSubject) -> list[Tensor]:
        """Return batches of noisy images (B, C, H, W), ``samples`` in all."""
        noise = subject.noise.fork("surrogate modules")
        copies = -(-self.samples // len(subject.x))
        every = [
            subject.threat.random_start(subject.x, noise.fork(number)) for number in range(copies)
        ]
        return list(torch.split(torch.cat(every)[: self.samples], _BATCH))
