"""Models with a memory: what they answer depends on what they were shown before.

A cache of answers, a counter of calls or a list of recent images makes attacks, which ask about
many neighbouring images, see another model than a user does.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_cli.audit import CHECKS, ModelCheck, Need, Probe
from robustbench_cli.audit._difference import largest_difference
from robustbench_cli.core.losses import wide
from robustbench_cli.core.registry import Number
from robustbench_cli.core.same_draws import same_draws
from robustbench_cli.evaluation.out_of_memory import in_parts
from robustbench_cli.runs.trust import Finding, Severity


@CHECKS.register("memory")
@dataclass(frozen=True, kw_only=True)
class Memory(ModelCheck):
    """A model that was shown other images before must give the same answers to new ones.

    The new images are near the ones that it was shown: a tenth of eps away, at a random start, and
    in a corner of the ball.  The answers are compared with those of a fresh copy that was shown
    noise.  Of a randomised model two fresh copies are compared, under the same random numbers.
    """

    needs: ClassVar[tuple[Need, ...]] = ("a second copy",)
    passes: ClassVar[float] = 4
    repeated: ClassVar[bool] = True
    severity: ClassVar[Severity] = "error"
    clean: ClassVar[bool] = True
    says: ClassVar[str] = (
        "the model remembers: after other images it answers differently from a fresh copy "
        "({images} of {of} images differ, by up to {value} of the logits' range)"
    )

    threshold: Number = 1e-4
    """The largest difference, as a fraction of the range of the logits, as for neighbours."""

    def look(self, probe: Probe) -> Iterator[Finding]:
        fresh, used = probe.copy(), probe.copy() if probe.random else probe.model
        if fresh is None or used is None:
            return
        with torch.no_grad(), same_draws():
            in_parts(fresh, torch.rand_like(probe.x))
            # The used model has been shown these images, and gradients were taken of it.
            _ = in_parts(used, probe.x) if probe.random else (probe.clean, probe.at_start)
        images = _new_images(probe)
        answers = []
        for model in (fresh, used):
            with torch.no_grad(), same_draws():
                answers.append(wide(in_parts(model, images)))
        apart = largest_difference(*answers)
        differ = int((apart > self.threshold).sum())
        if differ:
            most = float(apart.max())
            yield self.finding(differ, len(apart), value=most, threshold=self.threshold)


def _new_images(probe: Probe) -> Tensor:
    """Return images (m, C, H, W) at three distances from those of the probe, in turn."""
    slope = probe.noise.fork("corner").normal(probe.x)
    corner = probe.x + probe.threat.eps * probe.threat.steepest(slope)
    near = probe.x + 0.1 * (probe.start - probe.x)
    kinds = torch.stack([near, probe.start, probe.threat.project(corner, probe.x)])
    every = torch.arange(len(probe.x), device=probe.x.device)
    return kinds[every % len(kinds), every]
