"""An attack without a limit, which must succeed always.

Athalye et al. (2018, https://arxiv.org/abs/1802.00420) and Carlini et al. (2019,
https://arxiv.org/abs/1902.06705): where it fails, the attack does not work on this model.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from robustbench_cli.attacks import ATTACKS
from robustbench_cli.audit import CHECKS, Battery, BatteryCheck, Need
from robustbench_cli.core.registry import Number, Spec
from robustbench_cli.core.threat_text import format_eps
from robustbench_cli.runs.trust import Finding, Severity


@CHECKS.register("unbounded")
@dataclass(frozen=True, kw_only=True)
class Unbounded(BatteryCheck):
    """PGD of 100 steps in a ball that holds every image must leave almost nothing."""

    needs: ClassVar[tuple[Need, ...]] = ("gradients", "a ball")
    passes: ClassVar[float] = 200
    severity: ClassVar[Severity] = "warning"
    says: ClassVar[str] = (
        "{images} of {of} images stand against PGD without a limit ({what}): gradients do not lead "
        "to errors, or the attack is wrong"
    )

    attack: str = "pgd:steps=100,step=0.1,climbs=margin"
    """As --attack takes it; on the margin, so that large logits alone are no reason to fail."""
    left: Number = 0.01
    """The largest accuracy that may be left."""
    images: int = 256
    """Images that are attacked."""

    def examine(self, battery: Battery) -> Iterator[Finding]:
        among = battery.some(battery.right, self.images)
        tried = int(among.sum())
        eps = battery.diameter
        what = f"eps {format_eps(eps)} in {battery.threat.norm}"
        label = f"unbounded PGD-100@eps={format_eps(eps)}"
        attack = ATTACKS.build(Spec.parse(self.attack))
        judged = battery.run("unbounded", label, attack, eps=eps, among=among)
        stands = tried - int(judged.broken.sum())
        bad = stands > max(1, self.left * tried)
        text = f"PGD-100 at {what} leaves {stands} of {tried} images"
        battery.measured("unbounded", text, not bad)
        if bad:
            yield self.finding(stands, tried, what=what, value=stands / tried, threshold=self.left)
