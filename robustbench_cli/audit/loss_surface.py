"""An unstable loss: random points near an image have very different losses.

The indicator "unstable predictions" of Pintor et al. (2021, https://arxiv.org/abs/2106.09947):
the mean relative change of the loss over random points of the ball, capped at one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_cli.audit import CHECKS, Battery, BatteryCheck, Need
from robustbench_cli.core.losses import cross_entropy, wide
from robustbench_cli.core.registry import Number
from robustbench_cli.core.threat import over
from robustbench_cli.evaluation.out_of_memory import in_parts
from robustbench_cli.runs.trust import Finding, Severity


@CHECKS.register("loss-surface")
@dataclass(frozen=True, kw_only=True)
class UnstableLoss(BatteryCheck):
    """How much the cross-entropy differs between a point of the ball and points around it.

    The centre is a random point of the ball, the others lie up to a tenth of eps around it.
    """

    needs: ClassVar[tuple[Need, ...]] = ("a ball",)
    passes: ClassVar[float] = 101
    severity: ClassVar[Severity] = "info"
    says: ClassVar[str] = (
        "the loss changes by {value} of itself between random points a tenth of eps apart (mean "
        "over {of} images): the surface is noisy, average the gradient over several points"
    )

    threshold: Number = 0.5
    """The largest mean relative change, our own choice: the authors report the value alone."""
    images: int = 64
    """The largest number of images, unless the audit is thorough."""
    points: int = 100
    """Random points around each image."""
    distance: Number = 0.1
    """Their largest distance, as a fraction of eps."""

    def examine(self, battery: Battery) -> Iterator[Finding]:
        rows = battery.rows(battery.some(battery.right, self.images))
        if not len(rows):
            battery.measured("loss-surface", "not made: the model is right about no image")
            return
        x, y, threat = battery.data.images(rows), battery.data.y[rows], battery.threat.only(rows)
        noise = battery.noise.only(rows).fork("loss-surface")
        centre = threat.random_start(x, noise.fork("centre"))
        first, changes = cross_entropy(_logits(battery, centre, y), y), []
        for number in range(self.points):
            step = threat.direction(x, noise.fork(f"point {number}"))
            size = over(torch.full_like(first, self.distance * threat.eps), x)
            near = threat.project(centre + size.to(x) * step, x)
            change = (cross_entropy(_logits(battery, near, y), y) - first).abs()
            changes.append((change / first.clamp_min(1e-12)).clamp(max=1))
        value = float(torch.stack(changes).mean())
        text = f"the loss changes by {value:.2f} of itself between points a tenth of eps apart"
        battery.measured("loss-surface", text)
        if value > self.threshold:
            count = len(rows)
            yield self.finding(count, count, value=value, threshold=self.threshold)


def _logits(battery: Battery, x: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        return battery.shown(wide(in_parts(battery.model, x)), y)
