"""The parts of a record that hold results: weights that were kept, attacks, proofs, detections."""

from dataclasses import dataclass, field
from typing import Any, Literal

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
    trust: Trust = "unchecked"
    """How far the number can be trusted, by what the checks found."""


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
    within: list[Within]
    forwards: int
    """Noisy images pushed through the model."""
    seconds: float


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


@dataclass(frozen=True, kw_only=True)
class Domain:
    """One of several domains that the same perturbation is to fool."""

    name: str
    clean_accuracy: float
    robust_accuracy: float
    """The share of examples about which it is right at the image that counts."""
    weight: float
    """The attack's final weight of it: the mean over the examples it attacked."""
