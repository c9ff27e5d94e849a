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
from robustbench_cli.core.losses import lead
from robustbench_cli.core.registry import Number
from robustbench_cli.core.threat import over
from robustbench_cli.models.bpda import BPDA
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
    passes: ClassVar[float] = 22
    repeated: ClassVar[bool] = True
    severity: ClassVar[Severity] = "warning"
    says: ClassVar[str] = (
        "gradients do not match the model's answers on {of} images ({what}, compared with "
        "differences over eps/8): gradient attacks are misled"
    )

    threshold: Number = 0.85
    """The smallest correlation; on our zoo of models the honest ones have 0.95 and more, those with
    a useless gradient 0.75 and less."""
    steepness: Number = 2.0
    """The largest factor between the slope of the answers and the one that autograd states; the
    honest ones of the zoo stay between 0.9 and 1.1."""
    directions: int = 4
    """Random sign vectors for each image."""
    distance: Number = 0.125
    """The distance of the differences, as a fraction of eps."""

    def look(self, probe: Probe) -> Iterator[Finding]:
        if probe.random or any(isinstance(module, BPDA) for module in probe.model.modules()):
            return
        stated, seen = self._slopes(probe)
        size = stated.norm() * seen.norm()
        if bool(size == 0):  # where nothing moves, zero-gradient tells of it
            return
        correlation = float((stated * seen).sum() / size)
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

    def _slopes(self, probe: Probe) -> tuple[Tensor, Tensor]:
        """Return the differences that autograd states and those that are seen (m, directions)."""
        unit = torch.ones_like(probe.x)
        size = self.distance * probe.threat.eps
        step = size / probe.threat.distance(unit, torch.zeros_like(unit)).clamp_min(1e-12)
        # Away from the border of the box, so that both ends are images.
        edge = over(step.clamp(max=0.5), probe.x)
        centre = torch.maximum(torch.minimum(probe.start, 1 - edge), edge)
        grad, target = _gradient_of_lead(probe, centre)
        stated, seen = [], []
        for number in range(self.directions):
            signs = probe.noise.fork(f"direction {number}").normal(centre).sign()
            change = edge * probe.threat.allowed(signs)
            ends = [lead(probe.logits(centre + side * change), probe.y, target) for side in (1, -1)]
            stated.append(2 * (grad * change).flatten(1).sum(1))
            seen.append(ends[0] - ends[1])
        return torch.stack(stated, 1).double(), torch.stack(seen, 1).double()


def _lengths(one: Tensor, other: Tensor) -> Tensor:
    """Return the product of the lengths of each image's vectors (m)."""
    lengths: Tensor = torch.linalg.vector_norm(one, dim=1) * torch.linalg.vector_norm(other, dim=1)
    return lengths


def _gradient_of_lead(probe: Probe, centre: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradient (m, C, H, W) of the strongest wrong class's lead, and that class (m)."""
    wrong = probe.logits(centre).scatter(1, probe.y[:, None], float("-inf")).argmax(1)
    pairs = torch.stack([probe.y, wrong], 1)
    _, grad = probe.gradient(lambda logits, y: lead(logits, *y.unbind(1)), centre, pairs)
    return grad, wrong
