"""Attacks without gradients that break what gradients did not.

A gradient attack knows more and should find more (Athalye et al., 2018,
https://arxiv.org/abs/1802.00420; Carlini et al., 2019, https://arxiv.org/abs/1902.06705).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from robustbench_cli.audit import CHECKS, Evidence, Need, VerdictCheck
from robustbench_cli.core.registry import Number
from robustbench_cli.runs.trust import Finding, Severity


@CHECKS.register("black-box")
@dataclass(frozen=True, kw_only=True)
class BlackBox(VerdictCheck):
    """Black-box attacks of the same evaluation must break little that gradient attacks left.

    All attacks are compared, example by example, and so are the members of an ensemble.
    """

    needs: ClassVar[tuple[Need, ...]] = ("gradients", "several attacks")
    severity: ClassVar[Severity] = "warning"
    says: ClassVar[str] = (
        "black-box attacks broke {images} of the {of} images that gradients had left standing"
    )
    means: ClassVar[str] = (
        "the evaluation may be unreliable; try more queries and restarts, or --attack adaptive"
    )

    share: Number = 0.05
    """The share of the images that gradients left standing; below it, it is only mentioned."""
    least: int = 3
    """The smallest number of images that counts."""
    mentioned: Number = 0.002
    """The share of all images from which it is mentioned, as in AutoAttack's code."""

    def judge(self, evidence: Evidence) -> Iterator[Finding]:
        white, black = np.zeros(evidence.n, bool), np.zeros(evidence.n, bool)
        some_white = some_black = False
        for each in evidence.attacks:
            blind = np.isin(each.by, each.black_box)
            white |= each.broken & ~blind
            black |= each.broken & blind
            some_black |= len(each.black_box) > 0
            some_white |= len(each.black_box) < len(each.stages)
        left = evidence.right & ~white
        extra, of = int((black & left).sum()), int(left.sum())
        both = some_white and some_black and not evidence.random
        if not both or extra <= self.mentioned * evidence.n:
            return
        yield self.broken(
            extra,
            of,
            marked=extra >= self.least and extra > self.share * of,
            value=extra / of,
            threshold=self.share,
            accuracy=(of - extra) / evidence.n,
        )
