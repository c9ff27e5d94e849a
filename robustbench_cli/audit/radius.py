"""Accuracy over the radius: it must never rise, and it must reach zero.

Carlini et al. (2019, https://arxiv.org/abs/1902.06705) and Athalye et al. (2018,
https://arxiv.org/abs/1802.00420): with an unlimited radius an attack succeeds always.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from robustbench_cli.attacks import ATTACKS, Attack
from robustbench_cli.audit import CHECKS, Battery, BatteryCheck, Need
from robustbench_cli.audit._series import Series, follows_gradients, parts_of
from robustbench_cli.core.registry import Number, Spec
from robustbench_cli.core.threat_text import format_eps
from robustbench_cli.runs.trust import Finding, Severity

FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""The radii, as multiples of the evaluation's own; beyond the last each is twice the one before."""


@CHECKS.register("radius")
@dataclass(frozen=True, kw_only=True)
class Radius(BatteryCheck):
    """The claimed attack at growing radii, each attacked anew, until every image falls.

    Of an ensemble, the first member that climbs a loss inside the ball stands for it.
    """

    needs: ClassVar[tuple[Need, ...]] = ("gradients", "a ball")
    passes: ClassVar[float] = 280
    severity: ClassVar[Severity] = "warning"
    says: ClassVar[str] = "accuracy {what} ({images} of {of} images): the attack fails"

    rise: Number = 0.005
    """The largest rise of the accuracy from one radius to the next, as a share of all images."""
    least: int = 3
    """The number of images that a rise must comprise."""
    left: Number = 0.02
    """The largest accuracy at the largest radius."""

    def examine(self, battery: Battery) -> Iterator[Finding]:
        attack, name = _representative(battery)
        diameter, shares = battery.diameter, [battery.right.mean()]
        radii = [0.0]
        while len(radii) <= len(FACTORS) or (shares[-1] > self.left and radii[-1] < diameter):
            at = len(radii) - 1
            more = FACTORS[at] if at < len(FACTORS) else 2 * radii[-1] / battery.threat.eps
            eps = min(diameter, more * battery.threat.eps)
            judged = battery.run("radius", f"{name}@eps={format_eps(eps)}", attack, eps=eps)
            radii.append(eps)
            shares.append((battery.right & ~judged.broken).mean())
            if eps >= diameter:
                break
        yield from self._rises(battery, radii, shares)
        low = float(shares[-1]) <= self.left
        at_end = f"{shares[-1]:.2%} at eps {format_eps(radii[-1])}"
        battery.measured("radius", f"{name} leaves {at_end}, the largest radius tried", low)
        if not low:
            stands = round(float(shares[-1]) * battery.n)
            what = f"does not reach zero, however large the radius: {at_end}"
            yield self.finding(
                stands, battery.n, what=what, value=float(shares[-1]), threshold=self.left
            )

    def _rises(
        self, battery: Battery, radii: list[float], shares: list[np.floating]
    ) -> Iterator[Finding]:
        gains = np.diff(np.array(shares))
        most = int(gains.argmax())
        more = round(float(gains[most]) * battery.n)
        bad = more >= self.least and float(gains[most]) > self.rise
        text = f"the largest rise from one radius to the next is {max(0, more)} images"
        battery.measured("radius", text, not bad)
        if bad:
            between = f"from eps {format_eps(radii[most])} to {format_eps(radii[most + 1])}"
            yield self.finding(
                more,
                battery.n,
                what=f"rises {between}",
                value=float(gains[most]),
                threshold=self.rise,
            )


def _representative(battery: Battery) -> tuple[Attack, str]:
    """Return the attack whose accuracy is followed over the radius, and its name."""
    parts = parts_of(battery.claimed.stages, follows_gradients)
    if not parts:
        return ATTACKS.build(Spec("pgd")), "pgd20"
    name, part = next(iter(parts.items()))
    alone = len({stage.member for stage in battery.claimed.stages}) == 1
    return Series(parts={name: part}), battery.claimed.label if alone else name
