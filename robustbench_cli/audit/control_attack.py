"""The control after attacks that use gradients only: random corners, then random search.

Random points of the ball must not break what a gradient attack left standing (Athalye et al., 2018,
https://arxiv.org/abs/1802.00420), and a few hundred queries of Square (Andriushchenko et al., 2020,
https://arxiv.org/abs/1912.00049) must break little of it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from robustbench_cli.audit import CHECKS, Evidence, Need, VerdictCheck
from robustbench_cli.core.registry import Number
from robustbench_cli.runs.trust import Finding, Severity


@CHECKS.register("control")
@dataclass(frozen=True, kw_only=True)
class ControlAttack(VerdictCheck):
    """A short black-box attack on some images that stood; it counts in no attack's accuracy."""

    needs: ClassVar[tuple[Need, ...]] = ("a control",)
    severity: ClassVar[Severity] = "warning"
    says: ClassVar[str] = (
        "the control broke {images} of {of} images that gradients had left standing ({what}): "
        "try --attack cw100, or --attack adaptive"
    )

    share: Number = 0.06
    """The share of the images that were tried which random search may break; 0.042 is the largest
    on the honest nets of our zoo."""
    least: int = 3
    """The smallest number of images that counts, of random search."""
    few: Number = 0.3
    """The share from which two images count, where few were tried."""
    corners: int = 1
    """The number of images that random corners must break to count."""

    def judge(self, evidence: Evidence) -> Iterator[Finding]:
        control = evidence.control
        if control is None or evidence.random or not control.tried.any():
            return
        of = int(control.tried.sum())
        corners, search = int(control.corners.sum()), int(control.search.sum())
        broken = corners + search
        if not broken:
            return
        many = broken >= self.least and broken > self.share * of
        yield self.broken(
            broken,
            of,
            marked=corners >= self.corners or many or (broken >= 2 and broken > self.few * of),
            what=f"random corners {corners}, random search {search}",
            value=broken / of,
            threshold=self.share,
            accuracy=(int(evidence.standing.sum()) - broken) / evidence.n,
            attacks=[each.label for each in evidence.attacks if each.gradient_only],
        )
