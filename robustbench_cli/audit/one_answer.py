"""One answer to every clean image: a model that has collapsed, or whose inputs it cannot read.

The accuracy of such a model is the share of one class, which may be well above guessing, and no
attack can change it: its robust accuracy is as high as the clean one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from robustbench_cli.audit import CHECKS, Evidence, VerdictCheck
from robustbench_cli.audit._guessing import halfway
from robustbench_cli.core.registry import Number
from robustbench_cli.runs.trust import Finding, Severity


@CHECKS.register("one-answer")
@dataclass(frozen=True, kw_only=True)
class OneAnswer(VerdictCheck):
    """Clean images of several classes must not all get the same answer.

    On so few images that a model halfway between guessing and perfect might get all the others
    wrong it is only mentioned.
    """

    severity: ClassVar[Severity] = "error"
    clean: ClassVar[bool] = True
    says: ClassVar[str] = (
        "all {of} clean images get the same answer ({what}), though {images} of them are of other "
        "classes: the model tells nothing apart"
    )

    level: Number = 0.05
    """The largest probability of getting all images of other classes wrong by a model that is
    halfway to perfect, from which it is more than a note."""

    def judge(self, evidence: Evidence) -> Iterator[Finding]:
        answers = evidence.answers
        if answers is None or not len(answers) or (answers != answers[0]).any():
            return
        answer, others = int(answers[0]), evidence.n - int(evidence.right.sum())
        luck = (1 - halfway(evidence.classes)) ** others
        if others:
            yield self.finding(
                others,
                evidence.n,
                value=luck,
                threshold=self.level,
                what=f"class {answer}" if answer < evidence.classes else "rejected",
                severity="error" if luck <= self.level else "info",
            )
