"""Pixels that move the answers although no gradient reaches them.

A mask that detaches a few pixels hides them from every gradient attack, while the gradient of the
image as a whole still agrees with the answers.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch

from robustbench_cli.audit import CHECKS, ModelCheck, Need, Probe
from robustbench_cli.audit._difference import largest_difference
from robustbench_cli.core.registry import Number
from robustbench_cli.runs.trust import Finding, Severity


@CHECKS.register("blind-pixels")
@dataclass(frozen=True, kw_only=True)
class BlindPixels(ModelCheck):
    """Pixels whose gradient is zero on every image must not move the logits."""

    needs: ClassVar[tuple[Need, ...]] = ("gradients",)
    passes: ClassVar[float] = 0
    severity: ClassVar[Severity] = "warning"
    says: ClassVar[str] = (
        "{what} pixels have a zero gradient on every image, but move the logits of {images} of "
        "{of} images, by up to {value} of their range: gradient attacks cannot use them"
    )

    threshold: Number = 0.02
    """The smallest difference that counts, as a fraction of the range of the logits."""
    share: Number = 0.25
    """The share of images that must move: a unit of an honest net may wake up on a few."""

    def look(self, probe: Probe) -> Iterator[Finding]:
        grad = probe.at_start.margin
        if probe.random or not grad.any():  # zero-gradient tells of nets without any gradient
            return
        blind = (grad == 0).all(0) & (probe.threat.allowed(torch.ones_like(grad)) > 0).all(0)
        if not blind.any():
            return
        signs = probe.noise.fork("blind").normal(probe.start).sign()
        change = torch.where(blind, probe.threat.eps * signs, 0.0)
        moved = probe.threat.project((probe.start + change).clamp(0, 1), probe.x)
        moved = torch.where(blind, moved, probe.start)
        apart = largest_difference(probe.logits(moved), probe.start_logits)
        moving = int((apart > self.threshold).sum())
        if moving > self.share * len(apart):
            yield self.finding(
                moving,
                len(apart),
                value=float(apart.max()),
                threshold=self.threshold,
                what=str(int(blind.sum())),
            )
