"""The kinds of attacks: step by step, in projected steps, or by another library."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from robustbench_cli.attacks._base import Attack
from robustbench_cli.attacks._task import Observation, Output, State, Task
from robustbench_cli.core.gradient_ascent import (
    Ascent,
    Start,
    Steps,
    StepSize,
    check_reach,
    projected_step,
)
from robustbench_cli.core.threat import Threat


@dataclass(frozen=True, kw_only=True)
class IterativeAttack(Attack, ABC):
    """An attack that proposes one image per example after the other; it never calls the model.

    For each example in turn: ``begin``, then per step a pass of the model over ``seen``, ``loss``
    and its gradient, and ``move``, until ``over``.
    """

    taps: ClassVar[bool] = False
    """True if its loss reads the features that the last layer reads."""

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

    def spared(self, state: State) -> Tensor | None:
        """Return whether each row's step after this pass needs no gradient (B, bool).

        None, the default: all need one.  A row that needs none may be given zeros, and the loss of
        NaN; or its gradient none the less, where to leave it out saves nothing.
        """
        return None

    @abstractmethod
    def move(self, state: State, observation: Observation, task: Task) -> State:
        """Return the state before the next pass: the attack's step."""

    @abstractmethod
    def over(self, state: State, step_index: Tensor) -> Tensor:
        """Return whether pass number ``step_index`` (B, from 0) is each row's last (B, bool)."""

    def leaves_ball(self, threat: Threat) -> bool:
        """Return whether its iterates may leave the ball, so that the distance is checked."""
        return False

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
            model: images (B, C, H, W) in [0, 1] to logits (B, K); it has ``named_modules``, too.
        """

    def report(self, model: Any, x_adv: Tensor, task: Task) -> Tensor:
        """Return the numbers (B, T) that ``reports`` names, of the images that are judged.

        Args:
            model: as in ``craft``.
            x_adv: the images (B, C, H, W) as they are stored.
        """
        return x_adv.new_zeros(len(x_adv), len(self.reports))


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

    @property
    def planned_passes(self) -> int:
        return 2 * self.steps * self.draws

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
