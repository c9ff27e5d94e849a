"""The control after attacks that use gradients only: random corners, random search, other targets.

Random points of the ball must not break what a gradient attack left standing (Athalye et al., 2018,
https://arxiv.org/abs/1802.00420), and a few hundred queries of Square (Andriushchenko et al., 2020,
https://arxiv.org/abs/1912.00049) must break little of it.  Neither must short steps towards each of
the likeliest wrong classes (APGD-T; Croce & Hein, 2020, https://arxiv.org/abs/2003.01690): where
they break much, the class that seems nearest leads attacks away from those that are.
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
    """Short attacks on some images that stood; they count in no attack's accuracy."""

    needs: ClassVar[tuple[Need, ...]] = ("a control",)
    severity: ClassVar[Severity] = "warning"
    says: ClassVar[str] = (
        "the control broke {images} of {of} images that the attacks had left standing ({what}): "
        "try more steps and restarts, or --attack adaptive in Linf, L2 or L1"
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
    targeted: Number = 0.25
    """The share of the images that were tried which short targeted steps may break: on an honest
    net they find a few more than steps away from the true class."""

    def judge(self, evidence: Evidence) -> Iterator[Finding]:
        control = evidence.control
        if control is None or evidence.random or not control.tried.any():
            return
        of = int(control.tried.sum())
        corners, search = int(control.corners.sum()), int(control.search.sum())
        targeted = int(control.targeted.sum())
        blind, broken = corners + search, corners + search + targeted
        if not broken:
            return
        many = blind >= self.least and blind > self.share * of
        many |= broken >= self.least and broken > self.targeted * of
        yield self.broken(
            broken,
            of,
            marked=corners >= self.corners or many or (blind >= 2 and blind > self.few * of),
            what=f"random corners {corners}, random search {search}, targeted steps {targeted}",
            value=broken / of,
            threshold=self.share,
            accuracy=(int(evidence.standing.sum()) - broken) / evidence.n,
            attacks=[each.label for each in evidence.attacks if each.gradient_only],
        )
