"""The images that an evaluation ended with, shown to a fresh copy of the model one by one.

A model that remembers, counts its calls or looks at the rest of the batch may have answered the
attacks differently from how it will answer a user.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from robustbench_cli.audit import CHECKS, Evidence, Need, VerdictCheck
from robustbench_cli.runs.trust import Finding, Severity


@CHECKS.register("replay")
@dataclass(frozen=True, kw_only=True)
class Replayed(VerdictCheck):
    """A fresh copy must classify the final images as the evaluation did."""

    needs: ClassVar[tuple[Need, ...]] = ("a second copy",)
    passes: ClassVar[float] = 1
    severity: ClassVar[Severity] = "error"
    clean: ClassVar[bool] = True
    coupled: ClassVar[bool] = True
    says: ClassVar[str] = (
        "a fresh copy of the model classifies {images} of {of} of the final images differently "
        "({what}): its answers depend on what it was shown before, or beside"
    )

    def judge(self, evidence: Evidence) -> Iterator[Finding]:
        replay = evidence.replay
        if replay is not None and replay.differs.any():
            worse = int(replay.worse.sum())
            what = f"{worse} that were counted as right are wrong"
            yield self.finding(int(replay.differs.sum()), int(replay.tried.sum()), what=what)
