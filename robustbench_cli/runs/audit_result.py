"""The parts of a record that only an audit has: its battery, the grade of a claim, its curves.

No torch in here: reports start fast.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from robustbench_cli.runs.settings import Finite

Grade = Literal["reproduced", "undecided", "not reproduced", "overstated"]
"""reproduced: the claimed attack leaves what was claimed, and nothing stronger leaves less;
undecided: so it seems, on too few images to tell; not reproduced: the claimed attack leaves more or
less, by more than the sampling interval; overstated: another attack leaves less than what was
claimed."""


@dataclass(frozen=True, kw_only=True)
class BatteryAttack:
    """One attack that an audit ran beside the claimed one."""

    label: str
    check: str
    """The registered name of the check that ran it."""
    params: dict[str, Any]
    eps: Finite
    """The radius, for images in [0, 1]."""
    tried: int
    """The images that it was tried on."""
    broken: int
    """How many of them it broke."""
    left: Finite
    """The share of all images that are right after it; at the evaluation's own radius also after
    the claimed attack (per example, the worst case of both)."""
    same_radius: bool
    """True if the radius is the evaluation's own, so that it counts against the claim."""
    forwards: int
    backwards: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class BatteryMeasure:
    """What one check of the battery measured, whether or not it found something wrong."""

    check: str
    text: str
    """The sentence with its numbers."""
    passed: bool | None
    """None: it is a number without a threshold, or the check could not be made."""


@dataclass(frozen=True, kw_only=True)
class LossCurve:
    """The margin of some images, step after step of one attack that goes on to its end."""

    label: str
    images: int
    steps: list[int]
    """The steps at which it was kept, from 0 (the start)."""
    margins: list[Finite]
    """Mean over the images of the largest margin so far (largest wrong logit less the true one), as
    a fraction of the range of the clean logits; above 0 an image is misclassified."""
    broken: list[Finite]
    """The share of the images that were misclassified at this step or before."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A claimed robust accuracy, and how it fared."""

    accuracy: Finite
    """The claimed robust accuracy, as a share."""
    attack: str
    """The label of the claimed attack."""
    eps: Finite
    norm: str
    grade: Grade
    sentence: str
    measured: Finite
    """The accuracy under the claimed attack."""
    low: Finite
    high: Finite
    """Its 95 % interval (Wilson)."""
    points: Finite
    """The claim less what is left, in percentage points: under the claimed attack where that does
    not reproduce it, under the strongest one where it is overstated."""
    found_by: str = ""
    """The labels of the attacks that found it overstated."""
    left: Finite | None = None
    """The share of all images that are right after these attacks and the claimed one."""


@dataclass(frozen=True, kw_only=True)
class AuditResult:
    """All that an audit found beside the findings."""

    attacks: list[BatteryAttack] = field(default_factory=list)
    measures: list[BatteryMeasure] = field(default_factory=list)
    curves: list[LossCurve] = field(default_factory=list)
    claim: Claim | None = None
    examples: dict[str, str] = field(default_factory=dict)
    """Name and sha256 of the file with images that only another attack than the claimed one
    broke."""
    adaptive: bool = False
    """True if an adaptive attack was part of the battery."""
    members: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The members of the claimed attack, each with its name and all parameters."""
    access: list[str] = field(default_factory=list)
    """What the claimed attack knows of the model: logits, gradient, jacobian."""
