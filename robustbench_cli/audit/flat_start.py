"""Examples whose loss has no gradient where an attack began.

AutoAttack's code warns of it for the logit ratio (Croce & Hein, 2020,
https://arxiv.org/abs/2003.01690); attacks that have such a warning make it of every example.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from robustbench_cli.audit import CHECKS, Evidence, Need, VerdictCheck
from robustbench_cli.core.registry import Number
from robustbench_cli.runs.trust import Finding, Severity


@CHECKS.register("flat-start")
@dataclass(frozen=True, kw_only=True)
class FlatStart(VerdictCheck):
    """The attack itself must have seen a gradient at the start of every example."""

    needs: ClassVar[tuple[Need, ...]] = ("gradients",)
    severity: ClassVar[Severity] = "warning"
    says: ClassVar[str] = (
        "{what}: {images} of {of} examples have a zero gradient of its loss at a random start: "
        "gradient attacks may be unreliable"
    )

    share: Number = 0.01
    """The share of the examples that were attacked; below it, it is only mentioned."""

    def judge(self, evidence: Evidence) -> Iterator[Finding]:
        for each in evidence.attacks:
            flat, tried = int((each.zero_gradient).sum()), int((each.tried > 0).sum())
            if flat:
                yield self.finding(
                    flat,
                    tried,
                    what=each.label,
                    value=flat / tried,
                    threshold=self.share,
                    attacks=[each.label],
                    severity="warning" if flat > self.share * tried else "info",
                )
