"""Targets that were reached on images which count as robust.

An image that is made into a given class is adversarial (Carlini & Wagner, 2017,
https://arxiv.org/abs/1608.04644): it falls to an attack that may choose any wrong class, too.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from robustbench_cli.audit import CHECKS, Evidence, Need, VerdictCheck
from robustbench_cli.runs.trust import Finding, Severity


@CHECKS.register("targets-reached")
@dataclass(frozen=True, kw_only=True)
class TargetsReached(VerdictCheck):
    """Attacks with a target should break nothing that stood under all attacks without one.

    It marks no number, as a weak attack beside a strong one is no fault; what it counts is missing
    in the worst case, in which attacks with a target have no part.
    """

    needs: ClassVar[tuple[Need, ...]] = ("several attacks",)
    severity: ClassVar[Severity] = "info"
    says: ClassVar[str] = (
        "{what} turned {images} of the {of} images that stood under every other attack into their "
        "target: they are not robust; counted in the worst case, they would leave {value} %"
    )

    def judge(self, evidence: Evidence) -> Iterator[Finding]:
        standing = evidence.standing
        fell = {each.label: each.broken & standing for each in evidence.targeted}
        labels = [label for label, rows in fell.items() if rows.any()]
        if evidence.random or not evidence.attacks or not labels:
            return
        images = int(np.any([fell[label] for label in labels], axis=0).sum())
        of = int(standing.sum())
        yield self.finding(
            images,
            of,
            value=100 * (of - images) / evidence.n,
            what=", ".join(labels),
            attacks=[each.label for each in evidence.attacks],
        )
