"""The last images of attacks, moved a little: nearer to the clean image, or to its pixel values.

A model may treat images at the border of the ball, or off the pixel values of the data, in another
way than those in between, and so hide from attacks that go nowhere else.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from robustbench_cli.audit import CHECKS, Evidence, VerdictCheck
from robustbench_cli.core.registry import Number
from robustbench_cli.runs.trust import Finding, Severity


@CHECKS.register("nearer")
@dataclass(frozen=True, kw_only=True)
class Nearer(VerdictCheck):
    """What stood at the border must stand nearer to the clean image, and on whole pixel values.

    The images are the last ones of the examples that the checks look at, at 0.99, 0.93 and 0.85 of
    their distance, and with every pixel at the nearest value of the clean images.
    """

    passes: ClassVar[float] = 4
    severity: ClassVar[Severity] = "warning"
    says: ClassVar[str] = (
        "{images} of {of} images that an attack gave up are misclassified once they are moved a "
        "little towards the clean image, or to its pixel values: the border of the ball is guarded"
    )

    share: Number = 0.1
    """The share of the images; below it, it is only mentioned.  An image on the boundary may fall
    by rounding."""
    least: int = 2
    """The smallest number of images that counts."""

    def judge(self, evidence: Evidence) -> Iterator[Finding]:
        replay = evidence.replay
        if replay is None:
            return
        images = int((replay.nearer & evidence.standing).sum())
        of = int((replay.tried & evidence.standing).sum())
        if not images:
            return
        yield self.broken(
            images,
            of,
            marked=images >= self.least and images > self.share * of,
            value=images / of,
            threshold=self.share,
            accuracy=(int(evidence.standing.sum()) - images) / evidence.n,
        )
