"""Gradients that exist and are useless: autograd disagrees with differences of the model's answers.

A backward pass of one's own, a sawtooth or a staircase before the net, or a detached main path
beside a small differentiable one leave attacks with a gradient that points nowhere (Athalye et al.,
2018, https://arxiv.org/abs/1802.00420, on obfuscated gradients).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_cli.audit import CHECKS, ModelCheck, Need, Probe
from robustbench_cli.core.losses import lead, wide
from robustbench_cli.core.threat import over
from robustbench_cli.models.bpda import BPDA
from robustbench_cli.runs.trust import Finding, Severity


@CHECKS.register("secant")
@dataclass(frozen=True, kw_only=True)
class Secant(ModelCheck):
    """The slope that autograd states must be that of the logits over a quarter of the radius.

    Around a random start, the difference between the strongest wrong logit and the true one is
    followed along random signs, forward and backward by eps / 4; a smaller distance would miss
    staircases.  What is declared with ``bpda()`` has another gradient by intention and is left out.
    """

    needs: ClassVar[tuple[Need, ...]] = ("gradients",)
    passes: ClassVar[float] = 14
    severity: ClassVar[Severity] = "warning"
    says: ClassVar[str] = (
        "gradients do not match the model's answers (correlation {value} with differences over "
        "eps/4 on {of} images): gradient attacks are misled"
    )

    threshold: float = 0.9
    """The smallest mean correlation."""
    directions: int = 6
    """Random sign vectors for each image."""
    distance: float = 0.25
    """The distance of the differences, as a fraction of eps."""

    def look(self, probe: Probe) -> Iterator[Finding]:
        if probe.random or any(isinstance(module, BPDA) for module in probe.model.modules()):
            return
        unit = torch.ones_like(probe.x)
        size = self.distance * probe.threat.eps
        step = size / probe.threat.distance(unit, torch.zeros_like(unit)).clamp_min(1e-12)
        # Away from the border of the box, so that both ends are images.
        edge = over(step.clamp(max=0.5), probe.x)
        centre = torch.maximum(torch.minimum(probe.start, 1 - edge), edge)
        stated, target = self._gradient(probe, centre)
        pairs = []
        for number in range(self.directions):
            signs = probe.noise.fork(f"direction {number}").normal(centre).sign()
            signs = edge * probe.threat.allowed(signs)
            ends = [lead(probe.logits(centre + side * signs), probe.y, target) for side in (1, -1)]
            pairs.append(torch.stack([2 * (stated * signs).flatten(1).sum(1), ends[0] - ends[1]]))
        found = torch.stack(pairs, 2).double()  # (2, m, directions)
        units = found / found.norm(dim=2, keepdim=True).clamp_min(1e-30)
        agreement = (units[0] * units[1]).sum(1)
        # Where neither moves there is nothing to compare: zero-gradient tells of those.
        some = found.abs().amax(2) > 0
        counted = agreement[some.any(0)].nan_to_num(0.0)
        if len(counted) and float(counted.mean()) < self.threshold:
            value, low = float(counted.mean()), int((counted < self.threshold).sum())
            yield self.finding(low, len(counted), value=value, threshold=self.threshold)

    def _gradient(self, probe: Probe, centre: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradient (m, C, H, W) of the strongest wrong class's lead, and that class."""
        x = centre.detach().requires_grad_()
        with torch.enable_grad():
            logits = wide(probe.meter(x))
            wrong = logits.detach().scatter(1, probe.y[:, None], float("-inf")).argmax(1)
            loss = lead(logits, probe.y, wrong).sum()
            if not loss.requires_grad:
                return torch.zeros_like(x), wrong
            (grad,) = torch.autograd.grad(loss, x, allow_unused=True)
        return torch.zeros_like(x) if grad is None else grad.nan_to_num(0.0, 0.0, 0.0), wrong
