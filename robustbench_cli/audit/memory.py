"""Models with a memory: what they answer depends on what they were shown before.

A cache of answers, a counter of calls or a list of recent images makes attacks, which ask about
many neighbouring images, see another model than a user does.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch

from robustbench_cli.audit import CHECKS, ModelCheck, Need, Probe
from robustbench_cli.audit._difference import largest_difference
from robustbench_cli.core.losses import wide
from robustbench_cli.evaluation.out_of_memory import in_parts
from robustbench_cli.runs.trust import Finding, Severity


@CHECKS.register("memory")
@dataclass(frozen=True, kw_only=True)
class Memory(ModelCheck):
    """A used model and a fresh copy of it must give the same answers to new images.

    The new images are near the ones that the model was shown: a tenth of eps away, at a random
    start, and in a corner of the ball.
    """

    needs: ClassVar[tuple[Need, ...]] = ("a second copy",)
    passes: ClassVar[float] = 4
    repeated: ClassVar[bool] = True
    severity: ClassVar[Severity] = "error"
    clean: ClassVar[bool] = True
    says: ClassVar[str] = (
        "the model remembers: after it has been used it answers differently from a fresh copy "
        "({images} of {of} images differ, by up to {value} of the logits' range)"
    )

    threshold: float = 1e-4
    """The largest difference, as a fraction of the range of the logits, as for neighbours."""

    def look(self, probe: Probe) -> Iterator[Finding]:
        fresh = None if probe.random else probe.copy()
        if fresh is None:
            return
        _ = probe.clean, probe.at_start  # the model has been used once these are known
        slope = probe.noise.fork("corner").normal(probe.x)
        corner = probe.threat.eps * probe.threat.steepest(slope)
        near = probe.x + 0.1 * (probe.start - probe.x)
        kinds = torch.stack([near, probe.start, probe.threat.project(probe.x + corner, probe.x)])
        every = torch.arange(len(probe.x), device=probe.x.device)
        images = kinds[every % len(kinds), every]
        with torch.no_grad():
            new = wide(in_parts(fresh, images))
        apart = largest_difference(new, probe.logits(images))
        differ = int((apart > self.threshold).sum())
        if differ:
            most = float(apart.max())
            yield self.finding(differ, len(apart), value=most, threshold=self.threshold)
