"""The per-example verdicts that each number of a table is the mean of.

A number whose verdicts do not add up to it is treated as one without verdicts.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from robustbench_cli.core.robust_shares import bounded_shares, nearest_shares, within_radius
from robustbench_cli.report.columns import CLEAN, CertifiedCount
from robustbench_cli.report.example_files import ExampleFiles, ExamplesFile, MissingVerdicts
from robustbench_cli.runs.outcomes import Outcome, Within
from robustbench_cli.runs.records import Run

if TYPE_CHECKING:
    import numpy as np

_ROUNDING = 0.02
"""The most by which the sum of shares, kept as float32, may differ from the recorded number."""


@dataclass(frozen=True, kw_only=True)
class Origin(ABC):
    """The verdicts of one evaluation on its N examples that one number is the mean of."""

    file: ExamplesFile
    right: float
    """The number of right answers in the record, to which the verdicts must add up."""

    @cached_property
    def shares(self) -> "np.ndarray":
        """How often each example counts as right, in [0, 1], as float64 (N).

        Raises:
            MissingVerdicts: they are missing, damaged, or do not add up to the record's number.
        """
        found = self._shares().astype(float)
        if not abs(float(found.sum()) - self.right) <= _ROUNDING:  # NaN differs, too
            raise MissingVerdicts(f"{self.file.called} does not add up to its record")
        return found

    @property
    def labels(self) -> "np.ndarray":
        """The true classes (N); raise ``MissingVerdicts`` if they cannot be had."""
        return self.file.array("label")

    @property
    def predictions(self) -> "np.ndarray | None":
        """The classes that the model gives the N images that the number is about.

        None where the number is not about one image each: a certificate, a joint attack.
        """
        return None

    def check_presence(self) -> None:
        """Raise ``MissingVerdicts`` if the file is missing; nothing is read."""
        self.file.check_presence()

    @property
    def sources(self) -> tuple[tuple[str, str], ...]:
        """The evaluations and, of each, the label of the attack that counts; empty: clean images.

        Pairs of a run's id and a label, in the order in which they count.
        """
        return ((self.file.run_id, ""),)

    @abstractmethod
    def _shares(self) -> "np.ndarray": ...


@dataclass(frozen=True, kw_only=True)
class CleanOrigin(Origin):
    """The verdicts on the clean images."""

    @property
    def predictions(self) -> "np.ndarray":
        return self.file.array(f"{CLEAN}/prediction")

    def _shares(self) -> "np.ndarray":
        return self.file.array(f"{CLEAN}/share")


@dataclass(frozen=True, kw_only=True)
class AttackOrigin(Origin):
    """The verdicts under one attack."""

    label: str
    radius: float | None
    """Of an attack for the nearest image: the distance up to which it counts; None: any other."""

    @property
    def predictions(self) -> "np.ndarray":
        found = self.file.array(f"{self.label}/prediction")
        if self.radius is None:
            return found
        # An image beyond the radius does not count; within it the model is right.
        within = within_radius(self.file.array(f"{self.label}/norm"), self.radius)
        near = within | (self.shares < 0.5)
        seen: np.ndarray = found * near + self.labels * ~near
        return seen

    @property
    def sources(self) -> tuple[tuple[str, str], ...]:
        return ((self.file.run_id, self.label),)

    def _shares(self) -> "np.ndarray":
        right = self.file.array(f"{CLEAN}/share")
        if self.radius is None:
            return bounded_shares(right, self.file.array(f"{self.label}/share"))
        broken, norm = (self.file.array(f"{self.label}/{key}") for key in ("by", "norm"))
        return nearest_shares(right, broken >= 0, norm, self.radius)


@dataclass(frozen=True, kw_only=True)
class WorstOrigin(Origin):
    """The verdicts under all attacks of an evaluation together."""

    attacks: Sequence[AttackOrigin]

    @property
    def predictions(self) -> "np.ndarray":
        """Under the first attack that breaks an image; of the clean image where none does."""
        found = self.file.array(f"{CLEAN}/prediction").copy()
        left = self.file.array(f"{CLEAN}/share") > 0.5
        for attack in self.attacks:
            fell = left & (attack.shares < 0.5)
            found[fell] = attack.predictions[fell]
            left = left & ~fell
        return found

    @property
    def sources(self) -> tuple[tuple[str, str], ...]:
        return tuple(source for attack in self.attacks for source in attack.sources)

    def _shares(self) -> "np.ndarray":
        found = self.file.array(f"{CLEAN}/share").astype(float)
        for attack in self.attacks:
            found = bounded_shares(found, attack.shares)
        return found


@dataclass(frozen=True, kw_only=True)
class CertifiedOrigin(Origin):
    """The answers of a certified predictor, or what is proven within one radius."""

    label: str
    within: Within | None

    @property
    def sources(self) -> tuple[tuple[str, str], ...]:
        return ((self.file.run_id, self.label),)

    def _shares(self) -> "np.ndarray":
        answer = "certified" if self.within else "prediction"
        right: np.ndarray = self.file.array(f"{self.label}/{answer}") == self.labels
        if self.within:
            right = right & (self.file.array(f"{self.label}/radius") >= self.within.radius)
        return right


@dataclass(frozen=True, kw_only=True)
class JointOrigin(Origin):
    """The verdicts of a joint attack on N examples, or groups of images, in K domains."""

    label: str
    at: int | None
    """The domain whose right answers count; None: examples that are wrong in all of them."""

    @property
    def sources(self) -> tuple[tuple[str, str], ...]:
        return ((self.file.run_id, self.label),)

    def _shares(self) -> "np.ndarray":
        right = self.file.array(f"{self.label}/prediction") == self.file.array("label")
        found: np.ndarray = ~right.any(1) if self.at is None else right[:, self.at]
        return found


@dataclass(frozen=True, kw_only=True)
class GainOrigin(Origin):
    """The shares of one number less those of another, on the same examples."""

    after: Origin
    before: Origin

    @property
    def sources(self) -> tuple[tuple[str, str], ...]:
        return (*self.after.sources, *self.before.sources)

    def _shares(self) -> "np.ndarray":
        apart: np.ndarray = self.after.shares - self.before.shares
        return apart

    def check_presence(self) -> None:
        self.after.check_presence()
        self.before.check_presence()


def attack_origin(run: Run, label: str, outcome: Outcome, files: ExampleFiles) -> AttackOrigin:
    """Return where the number of one attack is from."""
    eps = run.settings.threat.eps if outcome.eps is None else outcome.eps
    return AttackOrigin(
        file=files.of(run),
        right=outcome.robust_accuracy * outcome.n,
        label=label,
        radius=eps if outcome.minimal else None,
    )


def worst_origin(run: Run, files: ExampleFiles) -> WorstOrigin:
    """Return where the number under all attacks of an evaluation is from."""
    return WorstOrigin(
        file=files.of(run),
        right=(run.worst_case_accuracy or 0.0) * (run.n or 0),
        attacks=[attack_origin(run, label, each, files) for label, each in run.attacks.items()],
    )


def certified_origin(run: Run, found: CertifiedCount, files: ExampleFiles) -> CertifiedOrigin:
    """Return where the number of a certified predictor is from."""
    return CertifiedOrigin(
        file=files.of(run), right=found.correct, label=found.label, within=found.within
    )


def gain_origin(after: Origin, before: Origin) -> GainOrigin:
    """Return where the difference of two numbers on the same examples is from."""
    return GainOrigin(file=after.file, right=after.right - before.right, after=after, before=before)
