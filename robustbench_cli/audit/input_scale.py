"""Models that expect other inputs than images in [0, 1]: a normalisation is missing or doubled.

The robust accuracy of such a model is that of another model than the one that was meant.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import ceil
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_cli.audit import CHECKS, ModelCheck, Probe
from robustbench_cli.core.registry import Number
from robustbench_cli.models.defended import defended_part
from robustbench_cli.models.normalizations import NORMALIZATIONS
from robustbench_cli.runs.trust import Finding, Severity


@CHECKS.register("input-scale")
@dataclass(frozen=True, kw_only=True)
class InputScale(ModelCheck):
    """Clean accuracy must not rise when images are normalised, or scaled, in a usual way first.

    It is looked at only where clean accuracy is not high already: values in [0, 255], values in
    [-1, 1], the statistics of MNIST, CIFAR-10 and ImageNet, their opposites, which undo a doubled
    normalisation, and the channels in the opposite order.  Of a model behind input defenses the
    classifier is asked: what such a change makes of a defense says nothing of what it expects.
    """

    severity: ClassVar[Severity] = "error"
    clean: ClassVar[bool] = True
    says: ClassVar[str] = (
        "clean accuracy rises by {value} of the images if they are {what} first: does the model "
        "expect other inputs than images in [0, 1]?"
    )

    high: Number = 0.9
    """The clean accuracy from which nothing is tried."""
    gain: Number = 0.4
    """The gain in clean accuracy that counts.  Nets that were trained for a few epochs gain up to
    0.3 by more contrast alone, those that expect other inputs 0.7 and more."""
    least: int = 4
    """The number of images that the gain must comprise, or all where fewer are looked at."""

    def look(self, probe: Probe) -> Iterator[Finding]:
        if (part := defended_part(probe.model)) is not None:
            probe = replace(probe, model=part.model)
        m, right = len(probe.x), int(probe.right.sum())
        wanted = max(min(self.least, m), ceil(self.gain * m))
        if right >= self.high * m or m - right < wanted or probe.random:
            return
        gains = {what: _gain(probe, change, wanted) for what, change in _changes(probe.x).items()}
        what, most = max(gains.items(), key=lambda pair: pair[1])
        if most >= wanted:
            yield self.finding(most, m, what=what, value=most / m, threshold=self.gain)


def _gain(probe: Probe, change: Callable[[Tensor], Tensor], wanted: int) -> int:
    """Return how many more images are right once they are changed; 0 if fewer than wanted.

    Images that are wrong now come first: most changes are given up after a few of them.
    """
    gained, left = 0, int((~probe.right).sum())
    for row in (~probe.right).nonzero():
        gained, left = gained + _hits(probe, change, row), left - 1
        if gained + left < wanted:
            return 0
    right = probe.right.nonzero().squeeze(1)
    gained -= len(right) - _hits(probe, change, right) if len(right) else 0
    return gained if gained >= wanted else 0


def _hits(probe: Probe, change: Callable[[Tensor], Tensor], rows: Tensor) -> int:
    changed = probe.logits(change(probe.x[rows]))
    return int((changed.argmax(1) == probe.y[rows]).sum())


def _changes(x: Tensor) -> dict[str, Callable[[Tensor], Tensor]]:
    """Return changes of images like ``x`` (B, C, H, W) by what is said of them."""
    channels = x.shape[1]
    found: dict[str, Callable[[Tensor], Tensor]] = {
        "scaled to [0, 255] (--mean 0 --std 1/255)": lambda x: 255 * x,
        "divided by 255 (--mean 0 --std 255)": lambda x: x / 255,
    }
    if channels > 1:
        found["given with their channels in the opposite order"] = lambda x: x.flip(1)
    for name, pair in NORMALIZATIONS.items():
        if len(pair[0]) not in (1, channels):
            continue
        mean, std = (torch.tensor(part, device=x.device).view(1, -1, 1, 1) for part in pair)
        found[f"normalised (--normalize {name})"] = _normalised(mean, std)
        twice = f"freed of a normalisation like {name} (twice? --normalize none)"
        found[twice] = _normalised(-mean / std, 1 / std)
    return found


def _normalised(mean: Tensor, std: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda x: (x - mean) / std
