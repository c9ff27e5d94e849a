"""The parts of a record that hold results: weights that were kept, attacks, proofs, detections."""

from dataclasses import dataclass, field
from typing import Any, Literal

from robustbench_cli.runs.budget_spent import BudgetedOutcome
from robustbench_cli.runs.settings import Finite
from robustbench_cli.runs.trust import Trust

Population = Literal["adversarial", "clean+adversarial"]


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Weights that a training run kept."""

    file: str
    sha256: str
    epoch: int
    rule: str
    """The rule for the epoch: last, best (held-out validation), epoch, oracle (test set)."""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One number that is no accuracy under attack: of an explanation, an inversion, a retrieval."""

    of: str
    """What was measured, the row of its table: ``gradient``, ``prediction+grad-cam``, ``ca+``."""
    name: str
    """The column of its table: ``energy in mask``, ``MSE``, ``R@1``."""
    value: Finite | None
    """None: it means nothing here, and ``note`` says why."""
    n: int
    """The number of images that it is a mean over."""
    better: Literal["higher", "lower", ""] = ""
    """Which direction is better: for an attack's row, better for the model."""
    unit: Literal["", "%"] = ""
    """``%``: the value is a share between 0 and 1, printed in per cent."""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class SampledOutcome:
    """The part of an attack's last members where they were tried on a part of what stood."""

    standing: int
    """Images that stood before them."""
    looked_at: int
    """Those of them that they were tried on."""
    broken: int
    """Those that they broke."""
    broken_at_most: int
    """The bound of what they would break of all that stood."""
    looks: int
    """How often it was decided whether to go on."""
    alpha: float
    """The probability with which the bound may be too low."""
    least: float
    """The robust accuracy at that bound; ``robust_accuracy`` is that without it."""
    closest: int = 0
    """Those that they were tried on as the closest to an error; the others were drawn at random."""
    of_closest: int | None = None
    """Those of the closest that they broke; None: not recorded, by a version before."""

    @property
    def whole(self) -> bool:
        """True if they were tried on all that stood after all: nothing is left open."""
        return self.looked_at == self.standing


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of one attack on all examples of an evaluation."""

    params: dict[str, Any]
    n: int
    correct: int
    """Examples that are classified correctly before and after."""
    robust_accuracy: float
    forwards: int
    """Images pushed forward through the model, the verdict's own passes included."""
    backwards: int
    seconds: float
    eps: Finite | None = None
    """The radius, where it is not the evaluation's own (a sweep)."""
    broken_by: dict[str, int] = field(default_factory=dict)
    """The number of examples that each member of an ensemble broke."""
    stages: list[str] = field(default_factory=list)
    """The member of an ensemble that each number in ``by`` stands for (``examples.npz``)."""
    minimal: bool = False
    """True if the attack looks for the nearest image, so that it has a distance."""
    median_norm: float | None = None
    """Of attacks for the nearest image: the median distance; None where half were not reached."""
    majority_accuracy: float | None = None
    """Of a randomised model: examples whose most frequent prediction is right."""
    spread: tuple[float, float] | None = None
    """Of a randomised model: the 5 % and 95 % points of the accuracy over single draws."""
    rejected: float | None = None
    """Of a model that rejects: the share of all examples that stand because the image under attack
    is rejected; None: it rejects nothing, or the attack is read off a longer one."""
    fooling_rate: Finite | None = None
    """Of attacks with one change for all images: the share of the examples that are right as they
    are and not with it; None: another attack, or none is right."""
    variant: str = ""
    """What was run instead of what the name stands for: "2 classes: apgd-ce + ..."; as a rule
    nothing."""
    sampled: SampledOutcome | None = None
    """Of a series whose last members were tried on a part of what stood (``--within``)."""
    budgeted: BudgetedOutcome | None = None
    """Of an evaluation with a budget: how far it has come (``--budget``)."""
    trust: Trust = "unchecked"
    """How far the number can be trusted, by what the checks found."""

    @property
    def least(self) -> float | None:
        """The lower end of the robust accuracy where something was left open; None: nothing was."""
        if self.sampled is not None and not self.sampled.whole:
            return self.sampled.least
        return self.budgeted.least if self.budgeted and self.budgeted.undecided else None

    def titled(self, label: str) -> str:
        """Return the label that the attack was given, with what was run instead of it."""
        return _titled(label, self.variant)


@dataclass(frozen=True, kw_only=True)
class TargetedOutcome:
    """The result of one attack with a target, which is no robust accuracy."""

    params: dict[str, Any]
    target: str
    """A class's number, or the rule that chose one for each example."""
    n: int
    """Examples that were attacked: right as they are, and of another class than the target."""
    reached: int
    """Examples that were made into their target."""
    success_rate: float | None
    """The share of the n; None where n is 0."""
    of_the_target: int
    """Examples that are right as they are and left out, because their true class is the target."""
    wrong: int
    """Examples that are left out because the model is wrong about them as they are."""
    forwards: int
    """Images pushed forward through the model, the verdict's own passes included."""
    backwards: int
    seconds: float
    reached_by: dict[str, int] = field(default_factory=dict)
    """The number of targets that each member of an ensemble reached."""
    stages: list[str] = field(default_factory=list)
    """The member of an ensemble that each number in ``by`` stands for (``examples.npz``)."""
    minimal: bool = False
    """True if the attack looks for the nearest image; it counts within the radius."""
    median_norm: float | None = None
    """Of attacks for the nearest image: the median distance; None where half were not reached."""
    variant: str = ""
    """What was run instead of what the name stands for; as a rule nothing."""
    trust: Trust = "unchecked"
    """By what the checks of the model found: no check looks at the attack itself.  What hides the
    truth makes the success rate a lower bound (``upper bound`` of what stands)."""

    def titled(self, label: str) -> str:
        """Return the label that the attack was given, with what was run instead of it."""
        return _titled(label, self.variant)


def _titled(label: str, variant: str) -> str:
    return f"{label} ({variant})" if variant else label


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """How an evaluated model rejects images: by a class of its own, or by a detector beside it.

    Clean accuracy counts what is right and not rejected; under attack what was right when clean
    stands if it is right or rejected.
    """

    kind: Literal["class", "detector"]
    index: int | None = None
    """Of a reject class: its position among the model's logits, from 0."""
    detector: str = ""
    fitted: str = ""
    """sha256 of what the detector had learned."""
    fpr: Finite | None = None
    """The share of clean held-out images that the detector may flag: its operating point."""
    threshold: Finite | None = None
    """The largest score that it accepts."""
    held_out: int = 0
    """The number of images that the threshold was set on: test images that are not evaluated."""
    held_out_flagged: Finite | None = None
    """The share of these that it flags."""
    clean_rejected: Finite
    """The share of the evaluated clean images that are rejected."""
    accepted_accuracy: Finite | None
    """The accuracy on those that are not; None where all are."""

    @property
    def label(self) -> str:
        """What rejects, as a table names it: ``reject class 10``, ``detector knn at 5 %``."""
        if self.fpr is None:
            return f"reject class {self.index}"
        return f"detector {self.detector} at {100 * self.fpr:g} %"


@dataclass(frozen=True, kw_only=True)
class Within:
    """The examples certified within one radius."""

    norm: str
    eps: Finite
    radius: Finite
    """The same in the certificate's norm: that of the smallest ball which holds the other."""
    correct: int
    """Examples whose true class is certified at least as far."""
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class Proof:
    """The result of one certificate on all examples of an evaluation."""

    params: dict[str, Any]
    norm: str
    """The norm in which radii are measured."""
    n: int
    correct: int
    """Examples whose true class is predicted; of smoothing: by the smoothed classifier."""
    accuracy: float
    abstained: float
    """The share of examples for which no class is predicted."""
    uncertified: float
    """The share of examples for which no class is certified."""
    mean_radius: float
    """The average certified radius (ACR): 0 for an example whose true class is not certified."""
    median_radius: Finite | None = None
    """The median in place of the mean; None in records of versions that did not keep it."""
    within: list[Within]
    forwards: int
    """Images pushed through the model, noisy ones or as they are."""
    seconds: float
    says_nothing: bool = False
    """True if no image is certified, rightly or wrongly, at any radius above 0 in ``within``: that
    tells nothing about the model, and the counts there are no accuracies."""


@dataclass(frozen=True, kw_only=True)
class DetectionPoint:
    """A point of a detector's ROC curve, and the accuracies of the model that rejects there."""

    fpr: float
    """The share of the clean images of this evaluation that it may flag: the threshold is set on
    them."""
    flagged: float
    """The share that it flags; lower where scores are tied."""
    clean_accuracy: float
    """The share of images that are right when clean, and not flagged."""
    detected: float | None
    """The share of the errors under attack that are flagged; None where there are no errors."""
    robust_accuracy: float
    """The share of images that are right and not flagged when clean, and under attack right or
    flagged.  An upper bound: the attack did not know of the detector."""


@dataclass(frozen=True, kw_only=True)
class Detection:
    """The power of one detector to tell wrong answers from right ones under one attack."""

    detector: str
    params: dict[str, Any]
    fitted: str
    """sha256 of what it had learned."""
    attack: str
    population: Population
    """Every image as the attack left it; or these and the clean ones together."""
    wrong: int
    right: int
    auroc: float | None
    """The share of pairs, one wrong and one right, in which the wrong answer is the more suspicious
    one, ties half; None where all are wrong or none."""
    points: list[DetectionPoint] = field(default_factory=list)
    """Of ``clean+adversarial``: the detector at 1 and 5 % of false positives."""


@dataclass(frozen=True, kw_only=True)
class Domain:
    """One of several domains that the same perturbation is to fool."""

    name: str
    clean_accuracy: float
    robust_accuracy: float
    """The share of examples about which it is right at the image that counts."""
    weight: float
    """The attack's final weight of it: the mean over the examples it attacked."""
