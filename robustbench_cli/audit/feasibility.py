"""The adversarial images as they are stored, verified once more.

Every published success must be an image of the ball and the box that the model gets wrong (Carlini
et al., 2019, https://arxiv.org/abs/1902.06705).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from robustbench_cli.audit import CHECKS, Battery, BatteryCheck
from robustbench_cli.runs.trust import Finding, Severity


@CHECKS.register("feasibility")
@dataclass(frozen=True, kw_only=True)
class Feasibility(BatteryCheck):
    """Each stored image of a success must be finite, allowed, and misclassified.

    Of a randomised model only whether they are allowed is looked at.
    """

    passes: ClassVar[float] = 1
    severity: ClassVar[Severity] = "error"
    says: ClassVar[str] = "{images} of {of} stored adversarial images are {what}"

    def examine(self, battery: Battery) -> Iterator[Finding]:
        rows = battery.rows(battery.claimed.broken)
        of = len(rows)
        if not of:
            battery.measured("feasibility", "the claimed attack broke no image")
            return
        x, y = battery.data.images(rows), battery.data.y[rows]
        stored = battery.images[rows.cpu()].to(x)
        inside = battery.threat.only(rows).inside(stored, x)
        if battery.claimed.attack.minimal:  # the nearest image, whatever its distance
            inside = ((stored >= 0) & (stored <= 1)).flatten(1).all(1)
        wrong = battery.wrong(stored, y)
        failed = {"outside the ball or the box": int((~inside).sum())}
        if not battery.random:
            failed["classified correctly"] = int((~wrong).sum())
        fine = not any(failed.values())
        battery.measured("feasibility", f"{of} stored adversarial images verified once more", fine)
        for what, count in failed.items():
            if count:
                yield self.finding(count, of, what=what)
