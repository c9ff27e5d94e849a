"""Attacks: one file each, found by name.

An attack proposes; ``engine.evaluate`` judges.  It is a frozen dataclass of hyper-parameters,
called with a model in evaluation mode and the examples that are still standing.  It need not be
exact about the ball: the judge projects, stores in float32 and classifies again.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from robustbench_cli.ascent import Ascent, Crafted, Model, Start, Steps, StepSize, check_reach
from robustbench_cli.noise import Noise
from robustbench_cli.registry import Registry
from robustbench_cli.threat import Threat


@dataclass(frozen=True, kw_only=True)
class Attack(ABC):
    """Hyper-parameters of one attack."""

    min_classes: ClassVar[int] = 2
    """How many classes its losses need; fewer is refused before anything runs."""

    @abstractmethod
    def __call__(
        self, model: Model, x: Tensor, y: Tensor, threat: Threat, noise: Noise, /
    ) -> Crafted:
        """Adversarial images for ``x`` (B, C, H, W) in [0, 1] with labels ``y`` (B)."""


@dataclass(frozen=True, kw_only=True)
class Iterated(Attack):
    """What the attacks that walk step by step have in common."""

    steps: Steps = 20
    """Gradient steps."""
    step: StepSize = 0.25
    """Step size as a fraction of eps: 2/255 at eps 8/255 is 1/4, 0.01 at eps 0.3 is 1/30."""
    start: Start = "uniform"
    """Where to begin: clean, uniform (in the ball), or gauss (x + 0.001 N(0, 1))."""
    restarts: Annotated[int, Field(ge=1)] = 1
    """Independent starts; each works on what the ones before it left standing."""
    last_iterate: bool = False
    """Count only the last iterate, as old protocols do, instead of any iterate."""

    def __post_init__(self) -> None:
        check_reach(self.steps, self.step)

    @property
    def climb(self) -> Ascent:
        """The walk itself, without what only an attack needs."""
        return Ascent(steps=self.steps, step=self.step, start=self.start)


ATTACKS: Registry[Attack] = Registry("attack", __name__)
