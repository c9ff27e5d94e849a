"""One step of a gradient attack that breaks what many steps do not.

The first sign of obfuscated gradients that Athalye et al. (2018, https://arxiv.org/abs/1802.00420)
list.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from robustbench_cli.audit import CHECKS, Evidence, Need, VerdictCheck
from robustbench_cli.core.registry import Number
from robustbench_cli.runs.trust import Finding, Severity


@CHECKS.register("one-step")
@dataclass(frozen=True, kw_only=True)
class OneStep(VerdictCheck):
    """An attack of many steps must break what one of a single step breaks."""

    needs: ClassVar[tuple[Need, ...]] = ("gradients", "several attacks")
    severity: ClassVar[Severity] = "warning"
    says: ClassVar[str] = (
        "{what} broke {images} of {of} images that attacks of many steps left standing: gradients "
        "are masked, or steps too long"
    )

    share: Number = 0.03
    """The share of all images."""
    least: int = 3
    """The smallest number of images that counts."""

    def judge(self, evidence: Evidence) -> Iterator[Finding]:
        if evidence.random:
            return
        plain = [a for a in evidence.attacks if a.gradient_only and not a.swept]
        for many in (a for a in plain if a.steps >= 5):
            # An attack of another library has no number of steps: it is none of a single one.
            for one in (a for a in plain if a.steps == 1 and a.eps <= many.eps):
                extra = int((one.broken & ~many.broken).sum())
                if extra >= self.least and extra > self.share * evidence.n:
                    left = int((evidence.right & ~many.broken).sum())
                    yield self.broken(
                        extra,
                        left,
                        marked=True,
                        what=one.label,
                        value=extra / evidence.n,
                        threshold=self.share,
                        accuracy=(left - extra) / evidence.n,
                        attacks=[many.label],
                    )
