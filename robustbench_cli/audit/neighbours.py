"""Predictions that depend on the other images of the batch.

An accuracy of such a model depends on the batch size.  It happens with BatchNorm that keeps no
running statistics, and with any other mean, maximum or attention over the batch.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch

from robustbench_cli.audit import CHECKS, ModelCheck, Probe
from robustbench_cli.audit._difference import NO_DIFFERENCE, largest_difference
from robustbench_cli.audit._probe import SEVERAL
from robustbench_cli.core.errors import UserError, in_one_line
from robustbench_cli.core.registry import Number
from robustbench_cli.runs.trust import Finding, Severity


@CHECKS.register("neighbours")
@dataclass(frozen=True, kw_only=True)
class Neighbours(ModelCheck):
    """The logits of an image must be the same alone, among seven, and in a larger batch."""

    passes: ClassVar[float] = 1
    severity: ClassVar[Severity] = "error"
    clean: ClassVar[bool] = True
    coupled: ClassVar[bool] = True
    says: ClassVar[str] = (
        "the answer for an image depends on the other images of its batch ({images} of {of} images "
        "differ, by up to {value} of the logits' range): evaluate it with fixed statistics"
    )

    threshold: Number = NO_DIFFERENCE
    """The largest difference, as a fraction of the range of the logits.  Float32 itself differs by
    about 1e-6 between batch sizes."""

    def look(self, probe: Probe) -> Iterator[Finding]:
        if probe.random or probe.steady:
            return
        whole = probe.start_logits
        try:
            alone = torch.cat([probe.logits(image) for image in torch.split(probe.start, 1)])
        except Exception as error:  # the model's own code: anything can come out of it
            raise UserError(
                "the model cannot classify an image alone, so its answers depend on the other "
                f"images of a batch ({in_one_line(error)}); evaluate it with fixed "
                "statistics, such as BatchNorm with track_running_stats=True"
            ) from None
        backwards = torch.split(probe.start.flip(0), SEVERAL)
        several = torch.cat([probe.logits(part) for part in backwards]).flip(0)
        apart = torch.maximum(largest_difference(whole, alone), largest_difference(whole, several))
        differ = int((apart > self.threshold).sum())
        if differ:
            most = float(apart.max())
            yield self.finding(differ, len(apart), value=most, threshold=self.threshold)
