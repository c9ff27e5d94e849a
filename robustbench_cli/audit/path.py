"""Another model inside the ball: the answers change by other amounts than the gradients on the way.

A model that looks for traces of an attack (noise, values that no file keeps) and then answers by
another net has sound gradients wherever an attack goes, and hides the net that users meet.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_cli.audit import CHECKS, ModelCheck, Need, Probe
from robustbench_cli.core.losses import lead
from robustbench_cli.core.registry import Number
from robustbench_cli.models.bpda import BPDA
from robustbench_cli.runs.trust import Finding, Severity


@CHECKS.register("path")
@dataclass(frozen=True, kw_only=True)
class Path(ModelCheck):
    """From a clean image to a random start, a logit's lead must change as the gradients there say.

    The gradients at both ends and in the
    middle are weighted by Simpson's rule, which is exact where they change evenly.
    """

    needs: ClassVar[tuple[Need, ...]] = ("gradients",)
    passes: ClassVar[float] = 4
    severity: ClassVar[Severity] = "warning"
    says: ClassVar[str] = (
        "between {of} clean images and random points of the ball the answers change by other "
        "amounts than the gradients on the way add up to (correlation {value}): attacks are shown "
        "another function than users are"
    )

    threshold: Number = 0.9
    """The smallest correlation over the images; at random starts the honest nets of digits and
    MNIST in our zoo have 0.99 and more, models with another one inside the ball 0.71 and less."""
    least: Number = 0.025
    """The smallest difference that counts, as a fraction of the range of the logits.  A net that
    has hardly learned anything moves so little that its kinks decide the correlation.  At the
    border of the ball it had 0.034, models with another one inside 0.089 and more; a random start
    is about half as far, so it is half of a threshold between these, not measured anew."""

    def look(self, probe: Probe) -> Iterator[Finding]:
        if probe.random or any(isinstance(module, BPDA) for module in probe.model.modules()):
            return
        stated, seen = self._changes(probe)
        size = stated.norm() * seen.norm()
        if bool(size == 0):  # where nothing moves, zero-gradient tells of it
            return
        correlation = float((stated * seen).sum() / size)
        range_ = (probe.clean.amax(1) - probe.clean.amin(1)).double().norm()
        error = float((stated - seen).norm() / range_)
        # NaN is no number to compare: zero-gradient and the verifier tell of that.
        if correlation < self.threshold and error > self.least:
            m = len(stated)
            yield self.finding(m, m, value=correlation, threshold=self.threshold)

    def _changes(self, probe: Probe) -> tuple[Tensor, Tensor]:
        """Return the changes of the leads that gradients state, and those that are seen (m)."""
        way = probe.start - probe.x
        end = probe.lead_at_start
        pairs = torch.stack([probe.y, end.strongest], 1)

        def at(share: float) -> tuple[Tensor, Tensor]:
            image = probe.x + share * way
            return probe.gradient(lambda z, y: lead(z, *y.unbind(1)), image, pairs)

        (logits, first), (_, middle) = at(0.0), at(0.5)
        stated = (way * (first + 4 * middle + end.grad)).flatten(1).sum(1) / 6
        ends = [lead(each, *pairs.unbind(1)).double() for each in (logits, end.logits)]
        return stated.double(), ends[1] - ends[0]
