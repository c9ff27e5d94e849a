"""Natural evolution strategies as a query-limited attack (Ilyas et al., 2018).

https://arxiv.org/abs/1804.08598.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from robustbench_cli.attacks import ATTACKS, Access, IterativeAttack, Observation, State, Task
from robustbench_cli.attacks.spsa import slopes
from robustbench_cli.core.gradient_ascent import StepSize
from robustbench_cli.core.registry import Number
from robustbench_cli.core.threat import over

PLATEAU = 5
"""When the last of so many looks is no better than the first, the step is halved."""


@ATTACKS.register("nes", pattern=r"nes-?(?P<queries>\d+)")
@dataclass(frozen=True, kw_only=True)
class NES(IterativeAttack):
    """Sign steps along a gradient estimated from pairs of Gaussian probes, within a budget.

    Settings are those of the authors' code.  That code climbs the cross-entropy and is targeted
    by default; here it is the margin, because differences of a saturated cross-entropy at sigma
    0.001 round to nothing.
    """

    norms: ClassVar[tuple[str, ...]] = ("Linf", "L2")
    access: ClassVar[Access] = "logits"

    queries: Annotated[int, Field(ge=1)] = 10_000
    """Images that the model is asked about, per example."""
    pairs: Annotated[int, Field(ge=1)] = 25
    """Random directions per step, each asked in both senses."""
    sigma: Annotated[Number, Field(gt=0)] = 0.001
    """Standard deviation of the probes, in pixel units."""
    momentum: Annotated[Number, Field(ge=0, lt=1)] = 0.9
    """Share of the old direction in the new one."""
    step: StepSize = 0.2
    """First step size as a fraction of eps: 0.01 at eps 0.05."""
    least: StepSize = 0.001
    """Smallest step size as a fraction of eps: 0.00005 at eps 0.05."""

    @property
    def probes(self) -> int:
        return 2 * self.pairs

    def begin(self, task: Task) -> State:
        x = task.x
        return {
            "x": x,
            "along": torch.zeros_like(x),
            "rate": x.new_full((len(x),), self.step),
            "recent": x.new_full((len(x), PLATEAU), -torch.inf),
            "probes": self._around(x, task, torch.zeros_like(task.y)),
        }

    def _around(self, x: Tensor, task: Task, turn: Tensor) -> Tensor:
        like = x[:, None].expand(-1, self.pairs, *x.shape[1:])
        offset = self.sigma * task.noise.fork("probe").at(turn).normal(like)
        return torch.cat([like + offset, like - offset], 1)

    def move(self, state: State, observation: Observation, task: Task) -> State:
        gap = observation.loss.to(state["recent"])
        recent = torch.cat([state["recent"][:, 1:], gap[:, None]], 1)
        stuck = recent[:, -1] < recent[:, 0]
        rate = torch.where(stuck, (state["rate"] / 2).clamp_min(self.least), state["rate"])
        # Before five looks there is nothing to compare with: minus infinity is never better.
        recent = torch.where(stuck[:, None], -torch.inf, recent)
        rise = slopes(state["probes"], observation.probes, task.y, self.sigma)
        along = self.momentum * state["along"] + (1 - self.momentum) * rise
        away = over(rate * task.threat.eps, along) * task.threat.steepest(along)
        x = task.threat.project(state["x"] + away, task.x)
        probes = self._around(x, task, observation.step_index + 1)
        return {"x": x, "along": along, "rate": rate, "recent": recent, "probes": probes}

    def over(self, state: State, step_index: Tensor) -> Tensor:
        return (step_index + 2) * (1 + self.probes) > self.queries
