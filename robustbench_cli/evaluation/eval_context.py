"""What the stages of an evaluation work with: data, threat, models, randomness."""

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from robustbench_cli.attacks import FitResult, Stage, State
from robustbench_cli.attacks._base import ENOUGH_CLASSES
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.examples import Examples
from robustbench_cli.core.threat import Threat
from robustbench_cli.evaluation.budget import Allowance
from robustbench_cli.evaluation.search_model import SearchModel
from robustbench_cli.evaluation.verifier import Verifier


@dataclass(frozen=True, kw_only=True)
class EvalContext:
    """Everything that the stages of an evaluation work with."""

    data: Examples
    threat: Threat
    """The threat of attacks and verdicts alike; with a mask, bound to all of ``data``."""
    verifier: Verifier
    """The model that decides."""
    search_model: SearchModel
    """The model that attacks work on."""
    noise: Noise
    """Keyed by example, for all of ``data``."""
    slots: int = 256
    """The number of images that the search model is shown at a time."""
    early_stop: bool = True
    """True if an example is done once it is broken.  False: the attack goes on and keeps the image
    with the highest margin, as it should when images are to be tried on another model."""
    target: Verifier | None = None
    """The model that decides about images in the end, where they are crafted on another one."""
    classes_to_reach: Tensor | None = None
    """The target class of each example of ``data`` (N); then both verifiers look for it.  None: any
    wrong class is a success."""
    others: Examples | None = None
    """The images that attacks which look at others find them among; None: those of ``data``."""
    class_order: Tensor | None = None
    """The classes of each example of ``data`` (N, K) in the order in which attacks aim at them;
    None: by their logits."""
    fit: "Fitter | None" = None
    """Fits an attack to training images; None: there are none."""
    fitted: State = field(default_factory=dict)
    """What the attack that is running has fitted."""
    classes: int = ENOUGH_CLASSES
    """The number of classes, or more: a bound of what attacks cost depends on it."""
    allowance: Allowance = field(default_factory=Allowance)
    """What may be spent; whatever it takes, unless there is a budget."""
    note: Callable[[str], None] = lambda _text: None
    """Called with what the user should know."""

    def aims(self, rows: Tensor) -> Tensor:
        """Return what verifiers go by at these positions (B): target classes, or else labels."""
        decisive = self.data.y if self.classes_to_reach is None else self.classes_to_reach
        return decisive[rows]


Fitter = Callable[[int, Stage, EvalContext], FitResult]
"""Fits the attack of a stage, of this number, in a context; the costs are this process's share."""
