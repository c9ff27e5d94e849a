"""Answers that jump when an image is changed by next to nothing.

A model that answers on the exact pixel values of the data in one way and on all other images in
another shows attacks, which leave those values at once, a function that no user meets.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from robustbench_cli.audit import CHECKS, ModelCheck, Probe
from robustbench_cli.audit._difference import largest_difference
from robustbench_cli.core.registry import Number
from robustbench_cli.runs.trust import Finding, Severity


@CHECKS.register("jumps")
@dataclass(frozen=True, kw_only=True)
class Jumps(ModelCheck):
    """Noise of a thousandth of the radius must not move the logits of a clean image by much."""

    passes: ClassVar[float] = 1
    severity: ClassVar[Severity] = "warning"
    says: ClassVar[str] = (
        "the logits of {images} of {of} clean images jump, by up to {value} of their range, under "
        "noise of eps/1000: attacks work on images that the model treats in another way"
    )

    threshold: Number = 0.1
    """The largest difference, as a fraction of the range of the logits.  A net whose logits change
    by their whole range within the radius moves by a thousandth of it."""
    size: Number = 1e-3
    """The length of the noise, as a fraction of eps."""
    share: Number = 0.1
    """The share of images that may jump: a quantiser does where an image lies on its step."""

    def look(self, probe: Probe) -> Iterator[Finding]:
        if probe.random:
            return
        near = probe.x + self.size * (probe.start - probe.x)
        apart = largest_difference(probe.logits(near), probe.clean)
        jumping = int((apart > self.threshold).sum())
        if jumping > self.share * len(apart):
            most = float(apart.max())
            yield self.finding(jumping, len(apart), value=most, threshold=self.threshold)
