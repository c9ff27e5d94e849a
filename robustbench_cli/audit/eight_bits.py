"""Adversarial images rounded to 8 bits per channel, as files keep them.

Carlini & Wagner (2017, https://arxiv.org/abs/1608.04644) search the lattice of images that can be
stored; an attack in floating point may lose successes when its images are saved.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch

from robustbench_cli.audit import CHECKS, Battery, BatteryCheck
from robustbench_cli.core.registry import Number
from robustbench_cli.runs.trust import Finding, Severity


@CHECKS.register("eight-bits")
@dataclass(frozen=True, kw_only=True)
class EightBits(BatteryCheck):
    """Most successes should survive rounding to multiples of 1/255 towards the clean image."""

    passes: ClassVar[float] = 1
    severity: ClassVar[Severity] = "info"
    says: ClassVar[str] = (
        "{images} of {of} adversarial images are no longer misclassified when they are rounded to "
        "8 bits: the attack lives on differences that no file keeps"
    )

    share: Number = 0.5
    """The share of the successes that may be lost before it is mentioned."""

    def examine(self, battery: Battery) -> Iterator[Finding]:
        rows = battery.rows(battery.claimed.broken)
        of = len(rows)
        if not of or battery.random:
            battery.measured("eight-bits", "not made: no success, or a randomised model")
            return
        x, y = battery.data.images(rows), battery.data.y[rows]
        change = 255 * (battery.images[rows.cpu()].to(x) - x)
        # The nearest level; where that is beyond the ball, the next one towards the clean image.
        # Clean images are multiples of 1/255 themselves.
        rounded = (x + change.round() / 255).clamp(0, 1)
        towards = (x + change.trunc() / 255).clamp(0, 1)
        inside = battery.threat.only(rows).inside(rounded, x)
        kept = torch.where(inside.view(-1, 1, 1, 1), rounded, towards)
        lost = of - int(battery.wrong(kept, y).sum())
        text = f"{of - lost} of {of} adversarial images survive rounding to 8 bits"
        battery.measured("eight-bits", text)
        if lost > self.share * of:
            yield self.finding(lost, of, value=lost / of, threshold=self.share)
