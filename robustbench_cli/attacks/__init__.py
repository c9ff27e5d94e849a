"""Attacks: one file each, found by its registered name.

An attack is a frozen dataclass of hyper-parameters.  It says where to begin (``begin``), which loss
to follow (``loss``) and, given what the model answered, the next images (``move``).  It knows its
examples only as rows of tensors: which examples share a batch, in what precision the model runs,
when an example is done, and how a run is resumed is the business of ``evaluation``.  An attack
proposes images; the verifier of the evaluation decides.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from robustbench_cli.attacks._task import Access, Examples, Observation, Output, State, Task
from robustbench_cli.core.gradient_ascent import (
    Ascent,
    Start,
    Steps,
    StepSize,
    check_reach,
    projected_step,
)
from robustbench_cli.core.registry import Registry
from robustbench_cli.core.threat import Threat
from robustbench_cli.views import VIEWS, View

__all__ = [
    "ATTACKS",
    "Access",
    "Attack",
    "Examples",
    "ExternalAttack",
    "Iterated",
    "IterativeAttack",
    "Observation",
    "Output",
    "Stage",
    "State",
    "Task",
]


class Stage(NamedTuple):
    """One restart, or one target class, of one member of an attack."""

    member: str
    """The name under which records count what the member broke."""
    attack: "Attack"
    restart_or_target: int
    """Counted from 0."""
    view: View | None = None
    """The view of the model to search on, if there is reason for it; None: the model itself."""
    most_spent: int | None = None
    """The passes that an example may have cost before, if the stage is still to attack it."""
    deterministic_only: bool = False
    """True if it is left out where the model is randomised: single draws mislead it."""

    @property
    def key(self) -> str:
        """The key of its random numbers: the registered name, so pgd100 begins as pgd20 does."""
        name = ATTACKS.name_of(self.attack)
        return name if self.view is None else f"{name} on {VIEWS.name_of(self.view)}"


@dataclass(frozen=True, kw_only=True)
class Attack:
    """Hyper-parameters of an ``IterativeAttack``, an ``ExternalAttack``, or a series of them."""

    min_classes: ClassVar[int] = 2
    """The number of classes that its loss needs, whatever its parameters."""
    norms: ClassVar[tuple[str, ...]] = ("Linf", "L2", "L1")
    """The norms of the threats that it can work under, whatever its parameters."""
    access: ClassVar[Access] = "gradient"
    """The knowledge of the model that it uses."""

    @property
    def needs(self) -> int:
        """The number of classes that there must be; fewer are refused before anything runs."""
        return self.min_classes

    @property
    def measures(self) -> tuple[str, ...]:
        """The norms of the threats that it can work under; others are refused."""
        return self.norms

    @property
    def minimal(self) -> bool:
        """True if it looks for the nearest adversarial image, whatever the radius."""
        return False

    @property
    def needs_float32(self) -> bool:
        """True if it must not work on a rounded model, whose rounding hides what it follows."""
        # A nearest adversarial image lies on the boundary, and differences of probes are small.
        return self.minimal or self.probes > 0

    @property
    def maskable(self) -> bool:
        """True if a mask can be imposed on it from outside, pixel by pixel."""
        return True

    @property
    def draws(self) -> int:
        """The number of passes averaged per step (expectation over transformation)."""
        return 1

    @property
    def probes(self) -> int:
        """The number of images per example that are classified beside the iterate."""
        return 0

    def members(self, threat: Threat) -> Mapping[str, "Attack"]:
        """Return the attacks it consists of, by the name under which records count each."""
        return {ATTACKS.name_of(self): self}

    def restarts_or_targets(self, classes: int) -> int:
        """Return how often it begins again, each time on the examples that still stand."""
        return 1

    def stages(self, threat: Threat, classes: int) -> list[Stage]:
        """Return every restart or target of every member, in the order in which they run."""
        return [
            Stage(name, member, restart_or_target)
            for name, member in self.members(threat).items()
            for restart_or_target in range(member.restarts_or_targets(classes))
        ]


@dataclass(frozen=True, kw_only=True)
class IterativeAttack(Attack, ABC):
    """An attack that proposes one image per example after the other; it never calls the model.

    For each example in turn: ``begin``, then per step a pass of the model over ``seen``, ``loss``
    and its gradient, and ``move``, until ``over``.
    """

    taps: ClassVar[bool] = False
    """True if its loss reads the features that the last layer reads."""
    leaves_ball: ClassVar[bool] = False
    """True if its iterates may leave the ball, so that the distance of a success is checked."""

    @abstractmethod
    def begin(self, task: Task) -> State:
        """Return the state before the first pass; ``x`` (B, C, H, W) in [0, 1] is classified."""

    def seen(self, x: Tensor, state: State, task: Task, step_index: Tensor) -> Tensor:
        """Return the images to classify instead of ``x``, where input diversity changes them.

        The gradient is still that with respect to ``x``.

        Args:
            x: the iterates (B, C, H, W), with a gradient.
            step_index: the number of passes before this one (B, int64).
        """
        return x

    def wanted(self, task: Task) -> Tensor:
        """Return the classes (B, M) of the logits whose gradients ``jacobian`` attacks are given.

        The default is all of them.
        """
        return torch.arange(task.clean.shape[1], device=task.y.device).expand_as(task.clean)

    def loss(self, out: Output, state: State, task: Task, step_index: Tensor) -> Tensor:
        """Return the loss (B) whose gradient the attack follows; it is to be maximised.

        Only attacks whose ``access`` is ``gradient`` have one.

        Args:
            out: what the model returned for ``seen``: logits (B, K) in float32 or wider and, for
                attacks with ``taps``, features (B, F).
            state: what the attack remembers, one row per example.
            step_index: how many passes each example has had before this one (B, int64): a loss
                may change on the way, as in the MD attack (Ma et al., 2020,
                https://arxiv.org/abs/2006.13726) or with an ODI start (Tashiro et al., 2020,
                https://arxiv.org/abs/2003.06878).  Examples side by side are at different steps.
        """
        raise NotImplementedError

    @abstractmethod
    def move(self, state: State, observation: Observation, task: Task) -> State:
        """Return the state before the next pass: the attack's step."""

    @abstractmethod
    def over(self, state: State, step_index: Tensor) -> Tensor:
        """Return whether pass number ``step_index`` (B, from 0) is each row's last (B, bool)."""

    def counts(self, state: State, step_index: Tensor) -> Tensor:
        """Return whether a misclassification at this pass is a success (B, bool)."""
        return torch.ones_like(step_index, dtype=torch.bool)

    def zero_gradient_at_start(self, state: State) -> Tensor:
        """Return whether the loss had a zero gradient at the start (B, bool), for a warning.

        Most attacks do not tell; AutoAttack's authors check it for the logit ratio.
        """
        return torch.zeros(len(state["x"]), dtype=torch.bool, device=state["x"].device)

    def diagnostics(self, state: State) -> Tensor:
        """Return what is to be reported of each example at its end (B, T); by default T is 0."""
        return state["x"].new_zeros(len(state["x"]), 0)


@dataclass(frozen=True, kw_only=True)
class ExternalAttack(Attack, ABC):
    """An attack of another library, which calls the model itself, batch by batch."""

    needs_float32 = True
    maskable = False

    @abstractmethod
    def craft(self, model: Any, task: Task) -> Tensor:
        """Return adversarial images (B, C, H, W); any image for examples that withstand.

        Args:
            model: images (B, C, H, W) in [0, 1] to logits (B, K).
        """


@dataclass(frozen=True, kw_only=True)
class Iterated(IterativeAttack):
    """The attacks that take a given number of projected steps of a given size."""

    nested_steps: ClassVar[bool] = False
    """True if the first k iterates are those of the same attack with ``steps=k``, so that nothing
    in it depends on ``steps`` but where it ends.  Every class says so of itself: a subclass does
    not inherit True, because a method that it overrides may look at ``steps``."""

    steps: Steps = 20
    """Gradient steps."""
    step: StepSize = 0.25
    """Step size as a fraction of eps: 2/255 at eps 8/255 is 1/4, 0.01 at eps 0.3 is 1/30."""
    start: Start = "uniform"
    """The starting point: clean, uniform (in the ball), gauss (x + 0.001 N(0, 1)), or radial (a
    random direction, a uniform length)."""
    restarts: Annotated[int, Field(ge=1)] = 1
    """Independent starts; each works on what the ones before it left standing."""
    last_iterate: bool = False
    """Count only the last iterate, as old protocols do, instead of any iterate."""
    eot: Annotated[int, Field(ge=1)] = 1
    """Gradients averaged per step, for randomised models (Athalye et al., 2018)."""

    def __post_init__(self) -> None:
        check_reach(self.steps, self.stride)

    @property
    def stride(self) -> float:
        """The step size as a fraction of eps, where a value of ``step`` stands for another."""
        return self.step

    @property
    def nested(self) -> bool:
        """True if a run with more steps of the same size contains this one.

        Then a sweep over ``steps`` reads the shorter runs off the longest.  It holds for classes
        that declare ``nested_steps`` in their own body, with one restart and any iterate counted.
        """
        declared = bool(vars(type(self)).get("nested_steps", False))
        return declared and self.restarts == 1 and not self.last_iterate

    @property
    def climb(self) -> Ascent:
        """The settings of the ascent, as ``core.gradient_ascent`` takes them."""
        return Ascent(steps=self.steps, step=self.stride, start=self.start)

    @property
    def draws(self) -> int:
        return self.eot

    def restarts_or_targets(self, classes: int) -> int:
        return self.restarts

    def begin(self, task: Task) -> State:
        return {"x": self.climb.begin(task.x, task.threat, task.noise)}

    def direction(self, grad: Tensor, state: State, task: Task) -> tuple[Tensor, State]:
        """Return the direction (B, C, H, W) to climb, and what to remember for the next step.

        The default is the gradient (B, C, H, W) itself.
        """
        return grad, {}

    def move(self, state: State, observation: Observation, task: Task) -> State:
        direction, memory = self.direction(observation.grad, state, task)
        x = projected_step(state["x"], direction, task.x, task.threat, self.stride)
        return {**state, **memory, "x": x}

    def over(self, state: State, step_index: Tensor) -> Tensor:
        return step_index >= self.steps

    def counts(self, state: State, step_index: Tensor) -> Tensor:
        return step_index >= self.steps if self.last_iterate else super().counts(state, step_index)


ATTACKS: Registry[Attack] = Registry("attack", __name__)
