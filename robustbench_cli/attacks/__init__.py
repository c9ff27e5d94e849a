"""Attacks: one file each, found by name.

An attack is a frozen dataclass of hyper-parameters that says where to begin and, shown what the
model answered, where to look next.  It knows its examples only as rows of tensors: which rows are
side by side, in what precision the model runs, when an example is done, and what is resumed
belongs to ``engine``.  It proposes; the engine judges.
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
    """One lane of one member of an attack."""

    member: str
    attack: "Attack"
    restart_or_target: int

    @property
    def key(self) -> str:
        """What its noise is keyed by: not the label, so that pgd100 begins where pgd20 does."""
        return ATTACKS.name_of(self.attack)


@dataclass(frozen=True, kw_only=True)
class Attack:
    """Hyper-parameters: an ``IterativeAttack``, an ``ExternalAttack``, or members that are such."""

    min_classes: ClassVar[int] = 2
    """How many classes its losses need; fewer is refused before anything runs."""
    norms: ClassVar[tuple[str, ...]] = ("Linf", "L2", "L1")
    """The threats it can work under; any other is refused."""
    access: ClassVar[Access] = "gradient"

    @property
    def needs(self) -> int:
        """How many classes there must be."""
        return self.min_classes

    @property
    def measures(self) -> tuple[str, ...]:
        """The norms it can be asked for."""
        return self.norms

    @property
    def minimal(self) -> bool:
        """Whether it looks for the nearest adversarial image, whatever the radius."""
        return False

    @property
    def maskable(self) -> bool:
        """Whether the engine can keep it to the pixels that a mask leaves free."""
        return True

    @property
    def draws(self) -> int:
        """Passes that are averaged for one look (expectation over transformation)."""
        return 1

    @property
    def probes(self) -> int:
        """Images per example that are classified beside the iterate."""
        return 0

    def members(self, threat: Threat) -> Mapping[str, "Attack"]:
        """The attacks it consists of, by the name under which records count what each broke."""
        return {ATTACKS.name_of(self): self}

    def restarts_or_targets(self, classes: int) -> int:
        """How often it is begun anew, each time on what is still standing."""
        return 1

    def stages(self, threat: Threat, classes: int) -> list[Stage]:
        """Every lane of every member, in the order in which they are run."""
        return [
            Stage(name, member, lane)
            for name, member in self.members(threat).items()
            for lane in range(member.restarts_or_targets(classes))
        ]


@dataclass(frozen=True, kw_only=True)
class IterativeAttack(Attack, ABC):
    """An attack that proposes image after image; the engine looks at them for it."""

    taps: ClassVar[bool] = False
    """Whether its loss reads the features in front of the last layer."""
    leaves_ball: ClassVar[bool] = False
    """Whether its iterates leave the ball, so that a success must be checked for its distance."""

    @abstractmethod
    def begin(self, task: Task) -> State:
        """Where to look first."""

    def seen(self, x: Tensor, state: State, task: Task, step_index: Tensor) -> Tensor:
        """The image as the model is shown it where a gradient is taken (input diversity)."""
        return x

    def wanted(self, task: Task) -> Tensor:
        """The classes (B, M) whose logits' gradients ``sees = "jacobian"`` means: all of them."""
        return torch.arange(task.clean.shape[1], device=task.y.device).expand_as(task.clean)

    def loss(self, out: Output, state: State, task: Task, step_index: Tensor) -> Tensor:
        """Return the loss (B) whose gradient the attack follows; higher is closer to success.

        It is asked for by attacks whose ``access`` is ``gradient`` only.

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
        """Where to look next."""

    @abstractmethod
    def over(self, state: State, step_index: Tensor) -> Tensor:
        """Whether look number ``taken`` (from 0) is each example's last one, (B)."""

    def counts(self, state: State, step_index: Tensor) -> Tensor:
        """Whether a misclassification at this look counts, (B)."""
        return torch.ones_like(step_index, dtype=torch.bool)

    def zero_gradient_at_start(self, state: State) -> Tensor:
        """Whether the loss was flat where the walk began, (B): it was led by nothing from there.

        Of most attacks nobody asks; AutoAttack's authors ask it of the logit ratio.
        """
        return torch.zeros(len(state["x"]), dtype=torch.bool, device=state["x"].device)

    def diagnostics(self, state: State) -> Tensor:
        """What is to be known of each example at its end, (B, T); of most attacks, nothing."""
        return state["x"].new_zeros(len(state["x"]), 0)


@dataclass(frozen=True, kw_only=True)
class ExternalAttack(Attack, ABC):
    """An attack that runs by itself on a batch, for codes that are not ours."""

    @property
    def maskable(self) -> bool:
        return False

    @abstractmethod
    def craft(self, model: Any, task: Task) -> Tensor:
        """Adversarial images (B, C, H, W); where there is none, anything."""


@dataclass(frozen=True, kw_only=True)
class Iterated(IterativeAttack):
    """The attacks that take a given number of projected steps of a given size."""

    nested_steps: ClassVar[bool] = False
    """Whether the first k iterates are those of the same attack with ``steps=k``, so that nothing
    in it depends on ``steps`` but where it ends.  Every class says so of itself: a subclass does
    not inherit True, because a method that it overrides may look at ``steps``."""

    steps: Steps = 20
    """Gradient steps."""
    step: StepSize = 0.25
    """Step size as a fraction of eps: 2/255 at eps 8/255 is 1/4, 0.01 at eps 0.3 is 1/30."""
    start: Start = "uniform"
    """Where to begin: clean, uniform (in the ball), gauss (x + 0.001 N(0, 1)), or radial (a random
    direction, a uniform length)."""
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
        """The step size that ``step`` stands for, as a fraction of eps."""
        return self.step

    @property
    def nested(self) -> bool:
        """Whether a run with more steps of the same size contains this one.

        Then a sweep over ``steps`` reads the shorter runs off the longest.  It holds for classes
        that declare ``nested_steps`` in their own body, with one restart and any iterate counted.
        """
        declared = bool(vars(type(self)).get("nested_steps", False))
        return declared and self.restarts == 1 and not self.last_iterate

    @property
    def climb(self) -> Ascent:
        """The walk itself, without what only an attack needs."""
        return Ascent(steps=self.steps, step=self.stride, start=self.start)

    @property
    def draws(self) -> int:
        return self.eot

    def restarts_or_targets(self, classes: int) -> int:
        return self.restarts

    def begin(self, task: Task) -> State:
        return {"x": self.climb.begin(task.x, task.threat, task.noise)}

    def direction(self, grad: Tensor, state: State, task: Task) -> tuple[Tensor, State]:
        """What to follow instead of the gradient, and what to remember for the next step."""
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
