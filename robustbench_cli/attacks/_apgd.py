"""The two schedules of Auto-PGD: how far to step, and when to go back to the best point.

``Ball`` is algorithm 1 of Croce & Hein (2020), https://arxiv.org/abs/2003.01690, for Linf and L2;
``Sparse`` is the L1 version of Croce & Hein (2021), https://arxiv.org/abs/2103.01208.  Where the
official code departs from the papers, this follows the code.  Each row is at a step of its own.
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
from robustbench_cli.core.gradient_ascent import Steps
from robustbench_cli.core.registry import Number
from robustbench_cli.core.threat import Threat, onto_l1, over


@dataclass(frozen=True)
class Walk(ABC):
    """A schedule for a number of steps."""

    steps: int
    rho: float

    @abstractmethod
    def begin(self, x: Tensor, threat: Threat, noise: Noise) -> State:
        """A random start, and empty records."""

    @abstractmethod
    def move(self, state: State, observation: Observation, x: Tensor, threat: Threat) -> State:
        """Take in what was seen and say where to look next."""

    @property
    @abstractmethod
    def observations(self) -> int:
        """How many looks there are."""


def _empty(start: Tensor) -> State:
    return {
        "x": start,
        "best": start.clone(),
        "best_grad": torch.zeros_like(start),
        "best_loss": torch.full_like(start.flatten(1)[:, 0], -torch.inf),
    }


def _improved(state: State, observation: Observation) -> State:
    """The records with the point that was just seen, if it is the best so far."""
    better = observation.loss > state["best_loss"]
    wide = over(better, state["x"])
    return {
        **state,
        "best": torch.where(wide, state["x"], state["best"]),
        "best_grad": torch.where(wide, observation.grad, state["best_grad"]),
        "best_loss": torch.where(
            better, observation.loss.to(state["best_loss"]), state["best_loss"]
        ),
    }


class Ball(Walk):
    """Momentum, and a step size that halves at checkpoints where the loss has stalled."""

    @property
    def observations(self) -> int:
        return self.steps + 1

    def begin(self, x: Tensor, threat: Threat, noise: Noise) -> State:
        # Under Linf one pixel at least is at the border.
        start = threat.project(x + threat.eps * threat.direction(x, noise.fork("start")), x)
        zero = torch.zeros_like(x.flatten(1)[:, 0])
        return {
            **_empty(start),
            "old": start.clone(),
            "eta": zero + 2 * threat.eps,
            "halved": zero + 1,
            "checked": zero - torch.inf,  # the best loss at the last checkpoint
            "rises": zero,  # since the last checkpoint
            "last": zero,  # the loss one step ago; zero before the first, as in the code
        }

    def move(self, state: State, observation: Observation, x: Tensor, threat: Threat) -> State:
        begun = observation.step_index > 0  # the start is a point, not a step
        s = _improved(state, observation)
        rises = s["rises"] + (begun & (observation.loss > s["last"]))
        window = _windows(self.steps, x.device)[observation.step_index.clamp(max=self.steps)]
        check = window > 0
        same = (s["halved"] < 1) & (s["checked"] >= s["best_loss"])
        halve = check & ((rises <= self.rho * window) | same)
        here = torch.where(over(halve, x), s["best"], s["x"])
        grad = torch.where(over(halve, x), s["best_grad"], observation.grad)
        eta = torch.where(halve, s["eta"] / 2, s["eta"])
        far = threat.project(here + over(eta, x) * threat.steepest(grad), x)
        # The point before is not reset with the rest: the momentum then leads to the best point.
        share = over(torch.where(begun, 0.75, 1.0).to(x), x)
        moved = here + share * (far - here) + (1 - share) * (here - s["old"])
        return {
            **s,
            "x": threat.project(moved, x),
            "old": here,
            "eta": eta,
            "halved": torch.where(check, halve.to(eta), s["halved"]),
            "checked": torch.where(check, s["best_loss"], s["checked"]),
            "rises": torch.where(check, 0, rises),
            "last": torch.where(begun, observation.loss.to(eta), s["last"]),
        }


@cache
def _windows(steps: int, device: torch.device) -> Tensor:
    """For each look: the steps since the last checkpoint if this is one, else 0."""
    window = max(int(0.22 * steps), 1)
    least, less = max(int(0.06 * steps), 1), max(int(0.03 * steps), 1)
    result, since = [0], 0
    for _ in range(steps):
        since += 1
        result.append(window if since == window else 0)
        if since == window:
            window, since = max(window - less, least), 0
    return torch.tensor(result, device=device)


class Sparse(Walk):
    """Few coordinates at a time, in balls of three, two and one times the radius."""

    @property
    def observations(self) -> int:
        return self.steps + len(_RADII)  # each ball is begun with a look of its own

    def begin(self, x: Tensor, threat: Threat, noise: Noise) -> State:
        start = onto_l1(x + noise.fork("start").normal(x), x, _RADII[0] * threat.eps)
        zero = torch.zeros_like(x.flatten(1)[:, 0])
        # Share of the coordinates that a step moves, and how many the best point has changed.
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
    """For each look: the radius (in eps), and whether it is its ball's first, a check, its last."""
    part = math.ceil(0.3 * steps)
    rows = []
    for radius, length in zip(_RADII, (part, part, steps - 2 * part), strict=True):
        every = max(int(0.04 * length), 1)
        rows += [(radius, i == 0, i > 0 and i % every == 0, i == length) for i in range(length + 1)]
    radius_, first, check, last = (torch.tensor(c, device=device) for c in zip(*rows, strict=True))
    return radius_, first, check, last


def _few(grad: Tensor, kept: Tensor) -> Tensor:
    """Equal steps along the ``kept`` share (B) of the coordinates with the largest gradient."""
    flat, count = grad.abs().flatten(1), grad[0].numel()
    place = ((1 - kept) * count).clamp(0, count - 1).long()
    least = flat.sort(1).values.gather(1, place[:, None])
    signs = torch.where(flat >= least, grad.flatten(1).sign(), 0)
    return (signs / (signs.abs().sum(1, keepdim=True) + 1e-10)).view_as(grad)


@dataclass(frozen=True, kw_only=True)
class APGD(IterativeAttack):
    """What the three losses have in common."""

    steps: Steps = 100
    """Gradient steps; the schedule's checkpoints are shares of it."""
    restarts: Annotated[int, Field(ge=1)] = 1
    """Independent starts; each works on what the ones before it left standing."""
    rho: Annotated[Number, Field(gt=0, lt=1)] = 0.75
    """The step size halves unless the loss rose in more than this share of the steps."""
    eot: Annotated[int, Field(ge=1)] = 1
    """Gradients averaged per step, for randomised models."""

    leaves_ball: ClassVar[bool] = True  # under L1 it begins in a larger ball

    @property
    def draws(self) -> int:
        return self.eot

    def restarts_or_targets(self, classes: int) -> int:
        return self.restarts

    def walk(self, threat: Threat) -> Walk:
        """The schedule for the norm: with momentum, or sparse under L1."""
        return {"L1": Sparse}.get(threat.norm, Ball)(self.steps, self.rho)

    def begin(self, task: Task) -> State:
        walk = self.walk(task.threat)
        state = walk.begin(task.x, task.threat, task.noise)
        return {**state, "looks": task.y * 0 + walk.observations}

    def move(self, state: State, observation: Observation, task: Task) -> State:
        return self.walk(task.threat).move(state, observation, task.x, task.threat)

    def over(self, state: State, step_index: Tensor) -> Tensor:
        return step_index >= state["looks"] - 1
