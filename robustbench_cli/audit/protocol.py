"""What the claimed attack leaves out by its settings.

Carlini et al. (2019, https://arxiv.org/abs/1902.06705): count a success at any step, restart, and
use losses that fit the number of classes (Croce & Hein, 2020, https://arxiv.org/abs/2003.01690).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from robustbench_cli.audit import CHECKS, Battery, BatteryCheck
from robustbench_cli.runs.trust import Finding, Severity


@CHECKS.register("protocol")
@dataclass(frozen=True, kw_only=True)
class Protocol(BatteryCheck):
    """The claimed attack should count any iterate, and try every wrong class that it can."""

    severity: ClassVar[Severity] = "info"
    says: ClassVar[str] = "{what}"

    def examine(self, battery: Battery) -> Iterator[Finding]:
        n, stages = battery.n, battery.claimed.stages
        said = []
        if last := {s.member for s in stages if getattr(s.attack, "last_iterate", False)}:
            said.append(f"{', '.join(sorted(last))} counts the last iterate only")
        targeted = {
            s.member: s.attack.restarts_or_targets(battery.classes)
            for s in stages
            if int(getattr(s.attack, "targets", 0)) > s.attack.restarts_or_targets(battery.classes)
        }
        for member, number in targeted.items():
            said.append(f"{member} has {number} classes to aim at, fewer than it is meant for")
        wide, high = battery.images.shape[2:]
        if wide != high and any("square" in s.member for s in stages):
            said.append("square's windows are square, the images are not")
        battery.measured("protocol", "; ".join(said) or "any iterate counts", not said)
        for what in said:
            yield self.finding(n, n, what=what)
