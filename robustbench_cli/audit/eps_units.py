"""The unit of eps: 0.03, 0.031 and 8/255 are three radii, and eps may be divided by 255 twice.

AutoAttack's list (https://github.com/fra31/auto-attack) marks models that were evaluated at 0.031.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from robustbench_cli.audit import CHECKS, Battery, BatteryCheck, Need
from robustbench_cli.core.registry import Number
from robustbench_cli.core.threat_text import format_eps
from robustbench_cli.runs.trust import Finding, Severity

USUAL = (1, 2, 4, 8, 16)
"""Linf radii of the literature, in units of 1/255."""


@CHECKS.register("eps-units")
@dataclass(frozen=True, kw_only=True)
class EpsUnits(BatteryCheck):
    """An Linf radius must reach the next grey level, and be the one that it is taken for."""

    needs: ClassVar[tuple[Need, ...]] = ("a ball",)
    severity: ClassVar[Severity] = "warning"
    says: ClassVar[str] = "eps {what}"

    near: Number = 0.02
    """The largest relative difference from a usual radius that looks like a rounded one."""

    def examine(self, battery: Battery) -> Iterator[Finding]:
        eps, n = float(battery.threat.eps), battery.n
        levels = 255 * eps
        shown = f"{battery.threat.norm} eps {format_eps(eps)} is {levels:.4g}/255"
        if battery.threat.norm != "Linf":
            battery.measured("eps-units", shown)
            return
        close = [u for u in USUAL if 1e-6 < abs(levels - u) < self.near * u]
        small = levels < 0.5
        battery.measured("eps-units", shown, not (small or close))
        if small:
            what = f"is {levels:.3g}/255, less than half a grey level: was it divided by 255 twice?"
            yield self.finding(n, n, what=what, value=levels, threshold=0.5)
        for usual in close:
            what = f"is {levels:.4g}/255, not {usual}/255: not comparable to numbers at that radius"
            yield self.finding(n, n, what=what, value=levels, threshold=usual, severity="info")
