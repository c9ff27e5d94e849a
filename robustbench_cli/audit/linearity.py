"""Shattered gradients: they turn around from one step of an attack to the next.

Qin et al. (2019, https://arxiv.org/abs/1907.02610) measure how far the loss is from its linear
approximation within the ball; Athalye et al. (2018, https://arxiv.org/abs/1802.00420) call
gradients that point nowhere shattered.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_cli.audit import CHECKS, Battery, BatteryCheck, Need
from robustbench_cli.audit._probe import gradient_in_parts
from robustbench_cli.core.losses import margin
from robustbench_cli.core.registry import Number
from robustbench_cli.core.threat import over
from robustbench_cli.runs.trust import Finding, Severity


@CHECKS.register("linearity")
@dataclass(frozen=True, kw_only=True)
class Linearity(BatteryCheck):
    """The gradient of the margin after one step must still be like the one before.

    Also told: the local linearity gamma, the largest difference over the images between the margin
    after a step and what the gradient promised, as a fraction of the range of the logits.
    """

    needs: ClassVar[tuple[Need, ...]] = ("gradients", "a ball")
    passes: ClassVar[float] = 4
    severity: ClassVar[Severity] = "warning"
    says: ClassVar[str] = (
        "gradients turn around within one step of the attack (median cosine {value} over {of} "
        "images): they are shattered"
    )

    threshold: Number = 0.1
    """The smallest median cosine."""
    images: int = 64
    """The largest number of images, unless the audit is thorough."""
    step: Number = 0.1
    """The length of the step, as a fraction of eps."""

    def examine(self, battery: Battery) -> Iterator[Finding]:
        rows = battery.rows(battery.some(battery.right, self.images))
        if battery.random or not len(rows):
            battery.measured("linearity", "not made: the model is randomised, or always wrong")
            return
        x, y, threat = battery.data.images(rows), battery.data.y[rows], battery.threat.only(rows)
        start = threat.random_start(x, battery.noise.only(rows).fork("linearity"))
        loss, grad, span = _slope(battery, start, y)
        size = torch.full_like(loss, self.step * threat.eps)
        moved = threat.project(start + over(size, x).to(x) * threat.steepest(grad), x)
        after, turned, _ = _slope(battery, moved, y)
        promised = (grad * (moved - start)).flatten(1).sum(1)
        gamma = float(((after - loss - promised).abs() / span).max())
        cosine = torch.cosine_similarity(grad.flatten(1), turned.flatten(1), dim=1)
        some = grad.flatten(1).any(1)  # of zero gradients another check tells
        value = float(cosine[some].median()) if some.any() else 1.0
        text = f"median cosine of gradients one step apart {value:.2f}, local linearity {gamma:.2f}"
        bad = value < self.threshold
        battery.measured("linearity", text, not bad)
        if bad:
            low = int((cosine[some] < self.threshold).sum())
            yield self.finding(low, int(some.sum()), value=value, threshold=self.threshold)


def _slope(battery: Battery, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the margin (B), its gradient (B, C, H, W), and the range of the logits (B)."""

    def shown(logits: Tensor, labels: Tensor) -> Tensor:
        return margin(battery.shown(logits, labels), labels)

    logits, grad = gradient_in_parts(battery.model, shown, x, y)
    logits = battery.shown(logits, y)
    span = (logits.amax(1) - logits.amin(1)).clamp_min(1e-12)
    return margin(logits, y), grad.nan_to_num(0.0, 0.0, 0.0), span
