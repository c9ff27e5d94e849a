"""The strongest attacks that there are, on what the claimed attack left standing.

AutoAttack (Croce & Hein, 2020, https://arxiv.org/abs/2003.01690), and the attack that adapts itself
to the model, in the spirit of Tramer et al. (2020, https://arxiv.org/abs/2002.08347).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from robustbench_cli.attacks import ATTACKS
from robustbench_cli.audit import CHECKS, Battery, BatteryCheck, Need
from robustbench_cli.core.registry import Number, Spec
from robustbench_cli.runs.trust import Finding, Severity

STRONGER = {
    "autoattack": (False,),
    "autoattack:version=rand": (True,),
    "adaptive:budget=5000": (False, True),
}
"""As --attack takes them, each with whether it is for models that are not randomised, or that are.
Those that do not go with the threat or the classes are left out.  With this budget the adaptive
attack does not repeat what AutoAttack has just done."""


@CHECKS.register("stronger")
@dataclass(frozen=True, kw_only=True)
class Stronger(BatteryCheck):
    """AutoAttack and the adaptive attack must break little that the claimed attack left."""

    needs: ClassVar[tuple[Need, ...]] = ("a ball",)
    passes: ClassVar[float] = 9800
    severity: ClassVar[Severity] = "warning"
    says: ClassVar[str] = (
        "{what} broke {images} of {of} images that the claimed attack had left standing"
    )

    share: Number = 0.1
    """The share of all images from which the number is marked."""

    def examine(self, battery: Battery) -> Iterator[Finding]:
        left = battery.standing
        for text, models in STRONGER.items():
            spec = Spec.parse(text)
            if spec.name not in ATTACKS.names() or spec.label == battery.claimed.label:
                continue
            attack = ATTACKS.build(spec)
            fits = battery.classes >= attack.needs and battery.threat.norm in attack.measures
            fits &= battery.differentiable or not attack.needs_gradients(battery.threat)
            if (
                not fits
                or battery.random not in models
                or attack == battery.claimed.attack
                or not left.any()
            ):
                continue
            judged = battery.run("stronger", spec.label, attack, among=left)
            broken, tried = int(judged.broken.sum()), int(left.sum())
            bad = broken > self.share * battery.n
            said = f"{spec.label} broke {broken} of {tried} images that had stood"
            battery.measured("stronger", said, not bad)
            if broken:
                yield self.broken(
                    broken,
                    tried,
                    marked=bad,
                    what=spec.label,
                    value=broken / battery.n,
                    threshold=self.share,
                    accuracy=battery.share_left(judged, left),
                )
