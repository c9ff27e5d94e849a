"""Models with a memory: what they answer depends on what they were shown before.

A cache of answers, a counter of calls or a list of recent images makes attacks, which ask about
many neighbouring images, see another model than a user does.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_cli.audit import CHECKS, ModelCheck, Need, Probe
from robustbench_cli.audit._difference import NO_DIFFERENCE, largest_difference
from robustbench_cli.core.losses import wide
from robustbench_cli.core.registry import Number
from robustbench_cli.core.same_draws import same_draws
from robustbench_cli.evaluation.out_of_memory import in_parts
from robustbench_cli.runs.trust import Finding, Severity


@CHECKS.register("memory")
@dataclass(frozen=True, kw_only=True)
class Memory(ModelCheck):
    """A model that was shown other images before must give the same answers to new ones.

    The new images are near the ones that it was shown: a tenth of the way to a random start, and in
    a corner of the ball.  The answers are compared with those of a fresh copy that was shown
    noise.  Of a randomised model two fresh copies are compared, under the same random numbers.
    """

    needs: ClassVar[tuple[Need, ...]] = ("a second copy",)
    passes: ClassVar[float] = 2
    severity: ClassVar[Severity] = "error"
    clean: ClassVar[bool] = True
    coupled: ClassVar[bool] = True
    says: ClassVar[str] = (
        "the model remembers: after other images it answers differently from a fresh copy "
        "({images} of {of} images differ, by up to {value} of the logits' range)"
    )

    threshold: Number = NO_DIFFERENCE
    """The largest difference, as a fraction of the range of the logits, as for neighbours."""

    def look(self, probe: Probe) -> Iterator[Finding]:
        if not probe.random and probe.steady:
            return
        fresh, used = probe.metered_copy(), probe.metered_copy() if probe.random else None
        if fresh is None:
            return
        noise = probe.noise.fork("other images").uniform(probe.x)
        answers = [_answers_after(noise, fresh, probe.near)]
        # The model itself was shown the clean images and the start before, with a gradient.
        answers.append(_answers_after(probe.x, used, probe.near) if used else probe.near_logits)
        apart = largest_difference(*answers)
        differ = int((apart > self.threshold).sum())
        if differ:
            most = float(apart.max())
            yield self.finding(differ, len(apart), value=most, threshold=self.threshold)


def _answers_after(before: Tensor, model: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Return the logits (m, K) of images by a model that is shown other ones before."""
    with torch.no_grad(), same_draws():
        in_parts(model, before)
    with torch.no_grad(), same_draws():
        return wide(in_parts(model, images))
