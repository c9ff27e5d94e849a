"""Models that write into the images that they are given.

An operation in place (``x.clamp_()``, ``x.sub_(mean)``) on the input changes the tensor of whoever
asks: the attack then goes on from another image than the one that it made.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from robustbench_cli.audit import CHECKS, ModelCheck, Probe
from robustbench_cli.runs.trust import Finding, Severity


@CHECKS.register("overwrites")
@dataclass(frozen=True, kw_only=True)
class Overwrites(ModelCheck):
    """Images must be the same after the model has classified them."""

    severity: ClassVar[Severity] = "error"
    clean: ClassVar[bool] = True
    coupled: ClassVar[bool] = True
    says: ClassVar[str] = (
        "the model writes into the images that it is given ({images} of {of} are changed by a "
        "forward pass): replace its operations in place on the input"
    )

    def look(self, probe: Probe) -> Iterator[Finding]:
        changed = int(probe.overwritten.sum())
        if changed:
            yield self.finding(changed, len(probe.x))
