"""Checks: can a robust accuracy be believed?  One file each, found by its registered name.

A check is a frozen dataclass of thresholds.  Model checks look at the model on a few images before
any attack is run, and on others afterwards; verdict checks look at all attacks of an evaluation,
example by example; battery checks run attacks of their own and belong to ``advbench audit``.  A
check yields findings, and a finding has a severity: what follows from it for each number is decided
in ``runs.trust``.  Nothing that a check does changes a verdict.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from robustbench_cli.attacks import Stage
from robustbench_cli.audit._battery import Battery
from robustbench_cli.audit._evidence import Evidence, JudgedAttack
from robustbench_cli.audit._probe import Probe
from robustbench_cli.core.registry import Registry
from robustbench_cli.core.threat import Threat
from robustbench_cli.runs.trust import Finding, Severity

__all__ = [
    "CHECKS",
    "Battery",
    "BatteryCheck",
    "Check",
    "Evidence",
    "JudgedAttack",
    "ModelCheck",
    "Need",
    "Probe",
    "VerdictCheck",
]

Need = Literal[
    "gradients", "a second copy", "several attacks", "a control", "training data", "a ball"
]


@dataclass(frozen=True, kw_only=True)
class Check(ABC):
    """Thresholds, with where they come from, and what is to be said of the check itself."""

    needs: ClassVar[tuple[Need, ...]] = ()
    """What it needs beside the model's logits."""
    passes: ClassVar[float] = 0
    """Its cost for each image that it looks at, in forward and backward passes."""
    severity: ClassVar[Severity]
    """The severity of its findings; a check may lower it for a weak sign."""
    clean: ClassVar[bool] = False
    """True if its findings concern the clean accuracy, too."""
    coupled: ClassVar[bool] = False
    """True if its findings say that answers depend on what was asked before, or beside."""
    says: ClassVar[str]
    """The sentence that it says; ``{images}``, ``{of}``, ``{value}`` and ``{what}`` are filled."""
    means: ClassVar[str] = ""
    """What follows from it, said after it; a finding that was lowered to ``info`` does not say it,
    as so few images prove nothing."""

    @classmethod
    def sentence(cls) -> str:
        """Return what it says where its severity is its own: the sentence and what follows."""
        return f"{cls.says}: {cls.means}" if cls.means else cls.says

    def fits(self, threat: Threat) -> bool:
        """Return True if it makes sense under this threat: some need a ball of Linf, L2 or L1."""
        return threat.is_ball or "a ball" not in self.needs

    def finding(
        self,
        images: int,
        of: int,
        *,
        value: float | None = None,
        threshold: float | None = None,
        what: str = "",
        attacks: Sequence[str] = (),
        severity: Severity | None = None,
        accuracy: float | None = None,
    ) -> Finding:
        """Return a finding of this check.

        Args:
            images: on how many of the ``of`` images that were looked at it was seen.
            value: the quantity that was compared with ``threshold``.
            what: what else the sentence names.
            attacks: the labels of the attacks that it concerns; none: all of them.
            severity: None: the check's own.
            accuracy: the share of all images on which the model is still right after what was
                found.
        """
        shown, severity = "" if value is None else f"{value:.3g}", severity or self.severity
        lowered = severity == "info" != self.severity
        sentence = self.says if lowered else self.sentence()
        return Finding(
            check=CHECKS.name_of(self),
            severity=severity,
            message=sentence.format(images=images, of=of, value=shown, what=what),
            attacks=list(attacks),
            clean=self.clean,
            images=images,
            of=of,
            value=value,
            threshold=threshold,
            accuracy=accuracy,
        )

    def broken(
        self,
        images: int,
        of: int,
        *,
        marked: bool,
        value: float,
        threshold: float,
        accuracy: float,
        what: str = "",
        attacks: Sequence[str] = (),
    ) -> Finding:
        """Return a finding that something broke images which attacks had left standing.

        Args:
            images: how many it broke, of the ``of`` that it tried.
            marked: whether they are enough to mark a number; otherwise they are only mentioned.
            accuracy: the share of all images on which the model is still right.
        """
        return self.finding(
            images,
            of,
            value=value,
            threshold=threshold,
            what=what,
            attacks=attacks,
            severity=self.severity if marked else "info",
            accuracy=accuracy,
        )


@dataclass(frozen=True, kw_only=True)
class ModelCheck(Check):
    """A check of the model on a few images, before the attacks and, on others, after them."""

    def cost(self, stages: Sequence[Stage]) -> float:
        """Return its passes for each image, where attacks of these stages are to be run."""
        return self.passes

    @abstractmethod
    def look(self, probe: Probe) -> Iterator[Finding]:
        """Yield what is wrong with the model on the probe's images."""


@dataclass(frozen=True, kw_only=True)
class VerdictCheck(Check):
    """A check of the verdicts of all attacks of an evaluation, after they were run."""

    @abstractmethod
    def judge(self, evidence: Evidence) -> Iterator[Finding]:
        """Yield what the verdicts contradict."""


@dataclass(frozen=True, kw_only=True)
class BatteryCheck(Check):
    """A check that runs attacks or measurements of its own, as part of ``advbench audit``."""

    @abstractmethod
    def examine(self, battery: Battery) -> Iterator[Finding]:
        """Yield what is wrong with the number of the claimed attack.

        What was measured is told to ``battery.measured``, whether something is wrong or not.
        """


CHECKS: Registry[Check] = Registry("check", __name__)
