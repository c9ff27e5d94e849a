"""Gradients that exist and are useless: autograd disagrees with differences of the model's answers.

A backward pass of one's own, a sawtooth or a staircase before the net, or a detached main path
beside a small differentiable one leave attacks with a gradient that points nowhere (Athalye et al.,
2018, https://arxiv.org/abs/1802.00420, on obfuscated gradients).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import isnan
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_cli.audit import CHECKS, ModelCheck, Need, Probe
from robustbench_cli.audit._probe import ROOM
from robustbench_cli.core.registry import Number
from robustbench_cli.core.secants import secants
from robustbench_cli.models.bpda import BPDA
from robustbench_cli.models.rejecting import rejection_of
from robustbench_cli.runs.trust import Finding, Severity


@CHECKS.register("secant")
@dataclass(frozen=True, kw_only=True)
class Secant(ModelCheck):
    """The slope that autograd states must be that of the logits over an eighth of the radius.

    Around a random start, and after the attacks where they ended, the difference between the
    strongest wrong logit and the true one is followed along random signs, forward and backward by
    eps / 8; a much smaller distance would miss staircases.  What is declared with ``bpda()`` has
    another gradient by intention and is left out.
    """

    needs: ClassVar[tuple[Need, ...]] = ("gradients",)
    passes: ClassVar[float] = 4
    severity: ClassVar[Severity] = "warning"
    says: ClassVar[str] = (
        "gradients do not match the model's answers on {of} images ({what}, compared with "
        "differences over eps/8): gradient attacks are misled"
    )

    threshold: Number = 0.85
    """The smallest correlation; on our zoo of models the honest ones have 0.95 and more, those with
    a useless gradient 0.75 and less."""
    steepness: Number = 1.5
    """The largest factor between the slope of the answers and the one that autograd states; the
    honest ones of the zoo stay between 0.9 and 1.1."""
    directions: int = 2
    """Random sign vectors for each image."""
    distance: Number = ROOM
    """The distance of the differences, as a fraction of eps; the start is so far from the border of
    [0, 1] that both ends are images."""

    def look(self, probe: Probe) -> Iterator[Finding]:
        if probe.random or any(isinstance(module, BPDA) for module in probe.model.modules()):
            return
        found = secants(
            lambda x: probe.at_start.logits if _known(probe, x) else probe.class_logits(x),
            lambda loss, x, target: (
                probe.at_start.margin if _known(probe, x) else probe.gradient(loss, x, target)[1]
            ),
            probe.start,
            probe.y,
            probe.threat,
            probe.noise,
            distance=self.distance,
            directions=self.directions,
        )
        stated, seen, correlation = found.stated, found.seen, found.correlation
        if bool(stated.norm() * seen.norm() == 0):  # where nothing moves, zero-gradient tells of it
            return
        slope = float((stated * seen).sum() / stated.square().sum())
        images = int(((stated * seen).sum(1) < self.threshold * _lengths(stated, seen)).sum())
        # Written so that NaN counts as a disagreement.
        where = "" if probe.ends is None else " where attacks ended"
        if not correlation >= self.threshold:
            value, limit, what = (
                correlation,
                self.threshold,
                f"correlation {correlation:.3g}{where}",
            )
        elif not 1 / self.steepness <= slope <= self.steepness:
            value, limit, what = (
                slope,
                self.steepness,
                f"the answers are {slope:.3g} times as steep{where}",
            )
        else:
            return
        yield self.finding(
            images, len(stated), value=None if isnan(value) else value, threshold=limit, what=what
        )


def _lengths(one: Tensor, other: Tensor) -> Tensor:
    """Return the product of the lengths of each image's vectors (m)."""
    lengths: Tensor = torch.linalg.vector_norm(one, dim=1) * torch.linalg.vector_norm(other, dim=1)
    return lengths


def _known(probe: Probe, x: Tensor) -> bool:
    """Return whether these are the start of the probe, where the margin's gradient is known."""
    # That of a model that rejects is of other logits.
    return rejection_of(probe.model) is None and torch.equal(x, probe.start)
