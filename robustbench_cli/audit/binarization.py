"""The binarization test: an attack must find an adversarial image where one is known to exist.

Zimmermann et al., "Increasing Confidence in Adversarial Robustness Evaluations" (2022),
https://arxiv.org/abs/2206.13991.  The head is replaced by a binary readout that calls one point at
distance eps different.  How it is fitted, the number of inner points, and the test against the
threshold by an interval are ours; the paper's code fits a logistic regression on 999 points.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch

from robustbench_cli.attacks import Attack, IterativeAttack
from robustbench_cli.audit import CHECKS, Battery, BatteryCheck, Need
from robustbench_cli.audit._binarised import binarised, features, inner_points, outer_point
from robustbench_cli.audit._series import Series, parts_of
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.registry import Number
from robustbench_cli.evaluation.batch_attack import attack_batch
from robustbench_cli.runs.trust import Finding, Severity


@CHECKS.register("binarization")
@dataclass(frozen=True, kw_only=True)
class Binarization(BatteryCheck):
    """The claimed attack must break almost every binarised net; random points show how hard it is.

    Members of the attack that need more than two classes are left out.
    """

    needs: ClassVar[tuple[Need, ...]] = ("a ball",)
    passes: ClassVar[float] = 1200
    severity: ClassVar[Severity] = "warning"
    says: ClassVar[str] = (
        "the attack missed the adversarial image that is known to exist in {images} of {of} "
        "binarised nets: it is too weak for this model"
    )

    least: Number = 0.95
    """The success rate that an attack must reach, less what chance explains."""
    images: int = 24
    """The largest number of images, unless the audit is thorough."""
    randoms: int = 100
    """Random points, half of them at distance eps."""

    def examine(self, battery: Battery) -> Iterator[Finding]:
        parts = parts_of(battery.claimed.stages, _takes_two_classes)
        why = self._why_not(battery, parts)
        rows = battery.rows(battery.some(battery.right, self.images))
        tried = found = lucky = 0
        for row in () if why else torch.split(rows, 1):
            x, noise = battery.data.images(row), battery.noise.only(row).fork("binarization")
            threat = battery.threat.only(row)
            net = binarised(battery.model, x, threat, noise)
            if net is None:
                continue
            zero = torch.zeros_like(row)
            whole, follows = Series(parts=parts), battery.differentiable
            done = attack_batch(net, x, zero, whole, threat, noise, differentiable=follows)
            half = self.randoms // 2
            far = [outer_point(x, threat, noise.fork(number)) for number in range(half)]
            guesses = torch.cat([inner_points(x, threat, noise.fork("guess"), half), *far])
            with torch.no_grad():
                lucky += int((net(guesses).argmax(1) != 0).any())
            tried, found = tried + 1, found + int(done.broken)
        if not tried:
            battery.measured("binarization", f"not made: {why or 'no readout could be fitted'}")
            return
        missed = tried - found
        allowed = 1.645 * (tried * self.least * (1 - self.least)) ** 0.5
        bad = missed > (1 - self.least) * tried + allowed
        text = (
            f"{', '.join(parts)} found the known adversarial image of {found} of {tried} binarised "
            f"nets; {self.randoms} random points that of {lucky}"
        )
        battery.measured("binarization", text, not bad)
        if bad:
            value = found / tried
            yield self.finding(missed, tried, value=value, threshold=self.least)

    def _why_not(self, battery: Battery, parts: dict[str, Attack]) -> str:
        """Return why the test cannot be made; empty if it can."""
        if battery.random:
            return "the model is randomised"
        if not parts:
            return "the claimed attack needs more than two classes"
        try:
            with torch.no_grad():
                features(battery.model, battery.data.images(slice(1)))
        except UserError:
            return "the model has no last linear layer, or calls it in another way"
        return ""


def _takes_two_classes(attack: Attack) -> bool:
    plain = isinstance(attack, IterativeAttack) and not attack.taps
    return plain and attack.needs <= 2 and not (attack.minimal or attack.fits)
