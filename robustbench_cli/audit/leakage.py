"""Test images that are among the training images.

Barz & Denzler (2020, https://arxiv.org/abs/1902.00423) found a few per cent of near duplicates in
CIFAR; a split that went wrong has many more.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from robustbench_cli.audit import CHECKS, Battery, BatteryCheck, Need
from robustbench_cli.core.registry import Number
from robustbench_cli.runs.trust import Finding, Severity

CELLS, LEVELS = 8, 16
"""Images are compared by their mean in CELLS x CELLS cells (half as many pixels a side where an
image is smaller than twice that), rounded to LEVELS levels."""
AT_ONCE = 4096


@CHECKS.register("leakage")
@dataclass(frozen=True, kw_only=True)
class Leakage(BatteryCheck):
    """Test images must not be training images, nor nearly so.

    Candidates have the same rounded means in coarse cells; near duplicates then differ by little.
    """

    needs: ClassVar[tuple[Need, ...]] = ("training data",)
    severity: ClassVar[Severity] = "warning"
    clean: ClassVar[bool] = True
    says: ClassVar[str] = (
        "{images} of {of} test images are training images or nearly so ({what}): accuracies on "
        "them say nothing about new images"
    )

    share: Number = 0.02
    """The share of the test images from which numbers are marked; CIFAR itself has about 3 % by a
    more generous measure."""
    near: Number = 2 / 255
    """The largest mean difference of near duplicates, for pixels in [0, 1]."""

    def examine(self, battery: Battery) -> Iterator[Finding]:
        train = battery.train()
        if train is None:
            battery.measured("leakage", "not made: the training images are not known")
            return
        test = battery.data.images(slice(None)).cpu()
        places: dict[bytes, list[int]] = {}
        for row, image in enumerate(test):
            for key in _keys(image[None])[0]:
                places.setdefault(key, []).append(row)
        least = np.full(len(test), np.inf)
        total = len(train.y)
        for first in range(0, total, AT_ONCE):
            images = train.images(slice(first, min(total, first + AT_ONCE))).cpu()
            for image, keys in zip(images, _keys(images), strict=True):
                for row in {row for key in keys for row in places.get(key, ())}:
                    least[row] = min(least[row], float((test[row] - image).abs().mean()))
        exact, near = int((least == 0).sum()), int(((least > 0) & (least <= self.near)).sum())
        both = exact + near
        bad = both > self.share * len(test)
        what = f"{exact} exactly, {near} nearly"
        text = f"test images among the training images: {what} ({total} compared)"
        battery.measured("leakage", text, not bad)
        if both:
            yield self.finding(
                both,
                len(test),
                what=what,
                value=both / len(test),
                threshold=self.share,
                severity="warning" if bad else "info",
            )


def _keys(images: Tensor) -> list[tuple[bytes, bytes]]:
    """Return two keys of each image (B, C, H, W): near images share at least one of them mostly."""
    high, across = (max(1, min(CELLS, side // 2)) for side in images.shape[2:])
    grey = images.mean(1, keepdim=True)
    coarse = F.adaptive_avg_pool2d(grey, (high, across)).flatten(1)
    # A mean near the border of a level has the same neighbours in the middle of a shifted one.
    rounded = [(LEVELS * coarse + shift).floor().to(torch.uint8).numpy() for shift in (0.0, 0.5)]
    return [(b"0" + a.tobytes(), b"1" + b.tobytes()) for a, b in zip(*rounded, strict=True)]
