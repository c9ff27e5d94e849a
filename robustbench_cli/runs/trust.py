"""How far a number can be trusted: what checks found, and what follows for each attack's number.

No torch in here: reports start fast.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from robustbench_cli.runs.settings import Finite

Severity = Literal["info", "warning", "error"]
"""info: worth knowing; warning: the robust accuracy is an upper bound; error: it means nothing."""
Trust = Literal["sound", "upper bound", "withheld", "unchecked"]
"""sound: no check found anything; upper bound: something hides the truth, which is lower; withheld:
the number means nothing and is not shown; unchecked: nobody has looked, or checks were left out."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one check found about the numbers of an evaluation."""

    check: str
    """The registered name of the check."""
    severity: Severity
    message: str
    attacks: list[str] = field(default_factory=list)
    """The labels of the attacks whose number it concerns; empty: of all."""
    clean: bool = False
    """True if it concerns the clean accuracy, too."""
    images: int = 0
    """The number of images on which it was seen."""
    of: int = 0
    """The number of images that were looked at."""
    value: Finite | None = None
    """The quantity that was compared with the threshold, where there is one."""
    threshold: Finite | None = None
    accuracy: Finite | None = None
    """The robust accuracy, as a share of all images, that is left after what the check broke."""
    confidence: Finite | None = None
    """Of a sampled tail: the confidence with which the whole attack leaves at least ``accuracy``;
    1 where a budget ran out, and counting alone says so."""

    def concerns(self, label: str) -> bool:
        """Return True if it concerns the number of the attack with this label."""
        return not self.attacks or label in self.attacks


@dataclass(frozen=True, kw_only=True)
class Checked:
    """The checks that an evaluation ran, and what they cost."""

    names: list[str]
    images: int
    """The number of images that the checks before the attacks looked at."""
    forwards: int
    """Images pushed forward through the model by checks, without the control attack."""
    backwards: int
    seconds: float
    left_out: list[str] = field(default_factory=list)
    """The checks that were not made because they make no sense under the threat."""

    @property
    def all_made(self) -> bool:
        """True if none was left out, so that a number in which nothing was found is sound."""
        return not self.left_out


def trust_in(findings: Iterable[Finding], label: str, *, checked: bool) -> Trust:
    """Return how far the number of an attack can be trusted.

    Args:
        label: the attack's.
        checked: False if no checks were run, or some were left out.
    """
    return _trust_by((each for each in findings if each.concerns(label)), checked=checked)


def _trust_by(findings: Iterable[Finding], *, checked: bool) -> Trust:
    severities = {each.severity for each in findings}
    if "error" in severities:
        return "withheld"
    if "warning" in severities:
        return "upper bound"
    return "sound" if checked else "unchecked"


def trust_in_clean(findings: Iterable[Finding], *, checked: bool) -> Trust:
    """Return how far the clean accuracy can be trusted, by the findings that concern it.

    Of an upper bound no lower one is known: test images that were trained on, for example.
    """
    return _trust_by((each for each in findings if each.clean), checked=checked)


def trust_in_worst(trusts: Sequence[Trust]) -> Trust:
    """Return how far the worst case over attacks can be trusted, given the trust in each of them.

    It is at most the accuracy under the most trusted one.
    """
    best: Sequence[Trust] = ("sound", "unchecked", "upper bound", "withheld")
    return min(trusts, key=best.index, default="unchecked")
