"""The adaptive step-size schedules of Auto-PGD, shared by its versions with different losses.

``MomentumSchedule`` is algorithm 1 of Croce & Hein (2020), https://arxiv.org/abs/2003.01690, for
Linf and L2; ``SparseSchedule`` is the L1 version of Croce & Hein (2021),
https://arxiv.org/abs/2103.01208.  Where the official code (fra31/auto-attack) departs from the
papers, this follows the code.  The rows of a batch may be at different steps.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from robustbench_cli.attacks import IterativeAttack, Observation, State, Task
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.free_looks import surely_all, surely_none
from robustbench_cli.core.gradient_ascent import Steps
from robustbench_cli.core.registry import Number
from robustbench_cli.core.threat import Threat, onto_l1, over


@dataclass(frozen=True)
class StepSchedule(ABC):
    """The update rule of Auto-PGD for a given number of steps."""

    leaves_ball: ClassVar[bool] = False
    """True if its iterates may leave the ball."""

    steps: int
    """Gradient steps in total."""
    rho: float
    """Fraction of loss-increasing steps up to which the step size is halved."""

    @abstractmethod
    def begin(self, x: Tensor, threat: Threat, noise: Noise) -> State:
        """Return the state with a random start around clean images ``x`` (B, C, H, W)."""

    @abstractmethod
    def move(self, state: State, observation: Observation, x: Tensor, threat: Threat) -> State:
        """Return the state with the next iterates, given the loss and gradient at the present ones.

        Args:
            x: clean images (B, C, H, W) in [0, 1].
        """

    @property
    @abstractmethod
    def observations(self) -> int:
        """The number of points at which the loss and its gradient are evaluated."""


def _empty(start: Tensor) -> State:
    """Return a state at ``start`` (B, C, H, W) in which no best point is recorded yet."""
    return {
        "x": start,
        "best": start.clone(),
        "best_grad": torch.zeros_like(start),
        "best_loss": torch.full_like(start.flatten(1)[:, 0], -torch.inf),
    }


def _improved(state: State, observation: Observation) -> State:
    """Return the state with its best point replaced where the present loss is strictly higher."""
    better = observation.loss > state["best_loss"]
    rows = over(better, state["x"])
    return {
        **state,
        "best": torch.where(rows, state["x"], state["best"]),
        "best_grad": torch.where(rows, observation.grad, state["best_grad"]),
        "best_loss": torch.where(
            better, observation.loss.to(state["best_loss"]), state["best_loss"]
        ),
    }


class MomentumSchedule(StepSchedule):
    """Momentum steps whose size is halved at checkpoints where the loss has stalled.

    Croce & Hein (2020), algorithm 1: step size 2 eps at first, momentum coefficient 0.75, and a
    return to the best point whenever the step size is halved.
    """

    @property
    def observations(self) -> int:
        return self.steps + 1

    def begin(self, x: Tensor, threat: Threat, noise: Noise) -> State:
        # As in the official code the start has length eps: under Linf at least one pixel is
        # at +-eps.
        start = threat.project(x + threat.eps * threat.direction(x, noise.fork("start")), x)
        zero = torch.zeros_like(x.flatten(1)[:, 0])
        return {
            **_empty(start),
            "previous": start.clone(),
            "eta": zero + 2 * threat.eps,
            "halved": zero + 1,  # 1 where the last checkpoint halved eta; 1 before the first one
            "checkpoint_loss": zero - torch.inf,  # the best loss at the last checkpoint
            "rises": zero,  # steps since the last checkpoint that increased the loss
            "previous_loss": zero,  # zero before the first step, as in the official code
        }

    def move(self, state: State, observation: Observation, x: Tensor, threat: Threat) -> State:
        begun = observation.step_index > 0  # the random start does not count as a step
        s, here, grad = self._checked(_improved(state, observation), observation, begun)
        far = threat.project((over(s["eta"], x) * threat.steepest(grad)).add_(here), x)
        # As in the official code, returning to the best point does not reset the previous one:
        # the next momentum term points from the last iterate to the best point.
        loss = observation.loss.to(s["eta"])
        if surely_all(begun):
            ahead, last = (far - here).mul_(0.75), (here - s["previous"]).mul_(0.25)
        else:
            alpha = over(torch.where(begun, 0.75, 1.0).to(x), x)
            ahead, last = alpha * (far - here), (1 - alpha) * (here - s["previous"])
            loss = torch.where(begun, loss, s["previous_loss"])
        moved = ahead.add_(here).add_(last)
        return {**s, "x": threat.project(moved, x), "previous": here, "previous_loss": loss}

    def _checked(
        self, s: State, observation: Observation, begun: Tensor
    ) -> tuple[State, Tensor, Tensor]:
        """Return the state, the iterate and its gradient after the checkpoints of those at one."""
        x, grad = s["x"], observation.grad
        rises = s["rises"] + (begun & (observation.loss > s["previous_loss"]))
        place = observation.step_index.clamp(max=self.steps)
        window = _checkpoint_windows(self.steps, x.device)[place]
        check = window > 0
        if surely_none(check):
            return {**s, "rises": rises}, x, grad
        same = (s["halved"] < 1) & (s["checkpoint_loss"] >= s["best_loss"])
        halve = check & ((rises <= self.rho * window) | same)
        rows = over(halve, x)
        checked = {
            "eta": torch.where(halve, s["eta"] / 2, s["eta"]),
            "halved": torch.where(check, halve.to(s["eta"]), s["halved"]),
            "checkpoint_loss": torch.where(check, s["best_loss"], s["checkpoint_loss"]),
            "rises": torch.where(check, 0, rises),
        }
        return (
            {**s, **checked},
            torch.where(rows, s["best"], x),
            torch.where(rows, s["best_grad"], grad),
        )


@cache
def _checkpoint_windows(steps: int, device: torch.device) -> Tensor:
    """Return (steps + 1) numbers: the steps since the last checkpoint at checkpoints, else 0.

    Checkpoints as in the official code: the first window is 22 % of the steps, each further one
    3 % of the steps shorter, down to 6 %.
    """
    window = max(int(0.22 * steps), 1)
    least, less = max(int(0.06 * steps), 1), max(int(0.03 * steps), 1)
    result, since = [0], 0
    for _ in range(steps):
        since += 1
        result.append(window if since == window else 0)
        if since == window:
            window, since = max(window - less, least), 0
    return torch.tensor(result, device=device)


class SparseSchedule(StepSchedule):
    """Sparse steps in balls of three, two and one times the radius.

    Croce & Hein (2021): each step moves the coordinates with the largest gradients, and each ball
    is started from the best point of the one before it, projected.  There is no momentum.

    It is the version in AutoAttack (``use_largereps``): from the same start it leaves the same
    images unbroken.  The official classes by themselves, and adv-lib, search in the ball of the
    radius alone unless told otherwise.  Neither is better throughout: with 20 steps on the logit
    ratio, three balls leave 12.4 of 247 images of an adversarially trained digits net on average
    and one ball 8.8, on an MNIST net 24 and 29 of 59; one start differs from another by some 3
    images of 247.
    """

    leaves_ball: ClassVar[bool] = True  # the first of the balls has a radius of 3 eps

    @property
    def observations(self) -> int:
        return self.steps + len(_RADII)  # the starting point of each ball is evaluated, too

    def begin(self, x: Tensor, threat: Threat, noise: Noise) -> State:
        start = onto_l1(x + noise.fork("start").normal(x), x, _RADII[0] * threat.eps)
        zero = torch.zeros_like(x.flatten(1)[:, 0])
        # kept: share of the coordinates that a step moves; support: how many coordinates the best
        # point had changed at the last checkpoint.
        return {**_empty(start), "eta": zero, "kept": zero, "support": zero}

    def move(self, state: State, observation: Observation, x: Tensor, threat: Threat) -> State:
        radius, first, check, last = (
            column[observation.step_index.clamp(max=self.observations - 1)]
            for column in _phases(self.steps, x.device)
        )
        eps, count = radius.to(x) * threat.eps, x[0].numel()
        fresh = {**state, "best_loss": state["best_loss"].masked_fill(first, -torch.inf)}
        s = _improved(fresh, observation)
        support = (s["best"] != x).flatten(1).sum(1).to(x)
        shrunk = check & (support < 0.95 * s["support"])
        eta = torch.where(shrunk, eps, torch.where(check, s["eta"] / 1.5, s["eta"]))
        eta = torch.where(first, eps, torch.minimum(torch.maximum(eta, eps / 10), eps))
        anew = first | check
        kept = torch.where(anew, support / count / 1.5, s["kept"])
        here = torch.where(over(shrunk, x), s["best"], s["x"])
        grad = torch.where(over(shrunk, x), s["best_grad"], observation.grad)
        moved = onto_l1(here + over(eta, x) * _few(grad, kept), x, eps)
        below = torch.clamp(radius - 1, min=1).to(x) * threat.eps
        return {
            **s,
            "x": torch.where(over(last, x), onto_l1(s["best"], x, below), moved),
            "eta": eta,
            "kept": kept,
            "support": torch.where(anew, support, s["support"]),
        }


_RADII = (3, 2, 1)


@cache
def _phases(steps: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the phases as (steps + 3) values each, one per evaluated point.

    Returns:
        The ball's radius in units of eps (int64), and bool masks of the first point of a ball, of
        checkpoints, and of the last point of a ball.  The balls get 30 %, 30 % and the rest of
        the steps; within each, checkpoints are 4 % of its steps apart.
    """
    part = math.ceil(0.3 * steps)
    rows = []
    for radius, length in zip(_RADII, (part, part, steps - 2 * part), strict=True):
        every = max(int(0.04 * length), 1)
        rows += [(radius, i == 0, i > 0 and i % every == 0, i == length) for i in range(length + 1)]
    radius_, first, check, last = (torch.tensor(c, device=device) for c in zip(*rows, strict=True))
    return radius_, first, check, last


def _few(grad: Tensor, kept: Tensor) -> Tensor:
    """Return the sparse step (B, C, H, W) of unit L1 length along ``grad``.

    It moves the share ``kept`` (B) of the coordinates with the largest gradient magnitudes, all by
    the same amount.
    """
    flat, count = grad.abs().flatten(1), grad[0].numel()
    place = ((1 - kept) * count).clamp(0, count - 1).long()
    least = flat.sort(1).values.gather(1, place[:, None])
    signs = torch.where(flat >= least, grad.flatten(1).sign(), 0)
    return (signs / (signs.abs().sum(1, keepdim=True) + 1e-10)).view_as(grad)


@dataclass(frozen=True, kw_only=True)
class APGD(IterativeAttack):
    """Auto-PGD without its loss; defaults of the paper and of AutoAttack.

    Unlike PGD it has no step size to choose: the step starts at 2 eps (eps under L1) and shrinks
    at checkpoints at which the loss has stalled.
    """

    steps: Steps = 100
    """Gradient steps; the schedule's checkpoints are fractions of it."""
    restarts: Annotated[int, Field(ge=1)] = 1
    """Random restarts; each attacks the examples that the previous ones left unbroken."""
    rho: Annotated[Number, Field(gt=0, lt=1)] = 0.75
    """The step size is halved unless the loss rose in more than this fraction of the steps."""
    eot: Annotated[int, Field(ge=1)] = 1
    """Gradients averaged per step, for randomised models (EOT)."""

    @property
    def planned_passes(self) -> int:
        return 2 * self.steps * self.draws

    def leaves_ball(self, threat: Threat) -> bool:
        return self.schedule(threat).leaves_ball

    @property
    def draws(self) -> int:
        return self.eot

    def restarts_or_targets(self, classes: int) -> int:
        return self.restarts

    def schedule(self, threat: Threat) -> StepSchedule:
        """Return the schedule for the threat's norm: sparse under L1, with momentum otherwise."""
        return {"L1": SparseSchedule}.get(threat.norm, MomentumSchedule)(self.steps, self.rho)

    def begin(self, task: Task) -> State:
        schedule = self.schedule(task.threat)
        state = schedule.begin(task.x, task.threat, task.noise)
        return {**state, "observations": task.y * 0 + schedule.observations}

    def move(self, state: State, observation: Observation, task: Task) -> State:
        return self.schedule(task.threat).move(state, observation, task.x, task.threat)

    def over(self, state: State, step_index: Tensor) -> Tensor:
        return step_index >= state["observations"] - 1
