"""Images crafted on a plain net, tried on the model.

Whoever knows the model should find more than whoever does not (Athalye et al., 2018,
https://arxiv.org/abs/1802.00420; Carlini et al., 2019, https://arxiv.org/abs/1902.06705).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from robustbench_cli.attacks import ATTACKS
from robustbench_cli.audit import CHECKS, Battery, BatteryCheck, Need
from robustbench_cli.core.registry import Number, Spec
from robustbench_cli.runs.trust import Finding, Severity
from robustbench_cli.views import SUBJECT_IMAGES, VIEWS, ViewSubject


@CHECKS.register("transfer")
@dataclass(frozen=True, kw_only=True)
class Transfer(BatteryCheck):
    """Images for a plain net of the same data must break little that the claimed attack left.

    Where the training images are not known, a net that has learned the model's answers stands for
    it, if the model's gradients are not sound.
    """

    needs: ClassVar[tuple[Need, ...]] = ("training data", "a ball")
    passes: ClassVar[float] = 80
    severity: ClassVar[Severity] = "warning"
    says: ClassVar[str] = (
        "images crafted on {what} broke {images} of {of} images that the claimed attack had "
        "left standing"
    )
    means: ClassVar[str] = "gradients are masked"

    attack: str = "pgd:steps=40,climbs=margin"
    """As --attack takes it; on the margin, so that large logits alone are no reason to fail."""
    share: Number = 0.02
    """The share of all images from which the number is marked."""
    least: int = 3
    """The smallest number of images that counts."""

    def examine(self, battery: Battery) -> Iterator[Finding]:
        left, net, made_from = battery.standing, None, "a plain net"
        if left.any():
            net = battery.plain()
        if net is None and left.any():
            net, made_from = _student(battery), "a student of the model"
        if net is None:
            why = "no training images, and gradients are sound" if left.any() else "nothing stood"
            battery.measured("transfer", f"not made: {why}")
            return
        attack = ATTACKS.build(Spec.parse(self.attack))
        judged = battery.run(
            "transfer", f"transfer from {made_from}", attack, among=left, source=net
        )
        broken, tried = int(judged.broken.sum()), int(left.sum())
        bad = broken >= self.least and broken > self.share * battery.n
        text = f"images crafted on {made_from} broke {broken} of {tried} images that had stood"
        battery.measured("transfer", text, not bad)
        if broken:
            yield self.broken(
                broken,
                tried,
                marked=bad,
                what=made_from,
                value=broken / battery.n,
                threshold=self.share,
                accuracy=battery.share_left(judged, left),
            )


def _student(battery: Battery) -> nn.Module | None:
    """Return a net that has learned the model's answers; None where gradients are sound."""
    rows = slice(SUBJECT_IMAGES)
    subject = ViewSubject(
        model=battery.model,
        x=battery.data.images(rows),
        y=battery.data.y[rows],
        threat=battery.threat.only(rows),
        noise=battery.noise.only(rows),
        random=battery.random,
    )
    return VIEWS.build(Spec("student")).build(subject)
