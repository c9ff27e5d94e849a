"""Natural evolution strategies, NES (Ilyas et al., 2018), https://arxiv.org/abs/1804.08598.

The paper's black-box attack with a limited number of queries.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from robustbench_cli.attacks import ATTACKS, Access, IterativeAttack, Observation, State, Task
from robustbench_cli.attacks.spsa import estimate_gradient
from robustbench_cli.core.gradient_ascent import StepSize
from robustbench_cli.core.registry import Number
from robustbench_cli.core.threat import over

_PLATEAU = 5
"""The step size is halved when the last of this many margins is below the first."""


@ATTACKS.register("nes", pattern=r"nes-?(?P<queries>\d+)")
@dataclass(frozen=True, kw_only=True)
class NES(IterativeAttack):
    """PGD on a gradient estimated from antithetic Gaussian samples, within a query budget.

    It needs logits only.  Settings are those of the authors' code, which maximises the
    cross-entropy and is targeted by default.  Here it is untargeted and maximises the margin,
    because differences of a saturated cross-entropy at sigma 0.001 round to zero.
    """

    norms: ClassVar[tuple[str, ...]] = ("Linf", "L2")
    access: ClassVar[Access] = "logits"

    queries: Annotated[int, Field(ge=1)] = 10_000
    """Forward passes per example."""
    pairs: Annotated[int, Field(ge=1)] = 25
    """Random directions per step; each costs two forward passes (antithetic samples)."""
    sigma: Annotated[Number, Field(gt=0)] = 0.001
    """Standard deviation of the samples, for pixels in [0, 1]."""
    momentum: Annotated[Number, Field(ge=0, lt=1)] = 0.9
    """Share of the previous direction in the new one."""
    step: StepSize = 0.2
    """First step size as a fraction of eps: 0.01 at eps 0.05."""
    least: StepSize = 0.001
    """Smallest step size as a fraction of eps: 0.00005 at eps 0.05."""

    @property
    def planned_passes(self) -> int:
        return self.queries

    @property
    def probes(self) -> int:
        return 2 * self.pairs

    def begin(self, task: Task) -> State:
        x = task.x
        return {
            "x": x,
            "velocity": torch.zeros_like(x),
            "rate": x.new_full((len(x),), self.step),
            "recent": x.new_full((len(x), _PLATEAU), -torch.inf),
            "probes": self._around(x, task, torch.zeros_like(task.y)),
        }

    def _around(self, x: Tensor, task: Task, draw: Tensor) -> Tensor:
        """Return Gaussian samples around ``x``, then their mirror images (B, 2 pairs, C, H, W)."""
        like = x[:, None].expand(-1, self.pairs, *x.shape[1:])
        offset = self.sigma * task.noise.fork("probe").at(draw).normal(like)
        return torch.cat([like + offset, like - offset], 1)

    def move(self, state: State, observation: Observation, task: Task) -> State:
        margin = observation.loss.to(state["recent"])
        recent = torch.cat([state["recent"][:, 1:], margin[:, None]], 1)
        stuck = recent[:, -1] < recent[:, 0]
        rate = torch.where(stuck, (state["rate"] / 2).clamp_min(self.least), state["rate"])
        # The first entry is minus infinity until the window is full, so nothing is halved before.
        recent = torch.where(stuck[:, None], -torch.inf, recent)
        rise = estimate_gradient(state["probes"], observation.probes, task.y, self.sigma)
        velocity = self.momentum * state["velocity"] + (1 - self.momentum) * rise
        step = over(rate * task.threat.eps, velocity) * task.threat.steepest(velocity)
        x = task.threat.project(state["x"] + step, task.x)
        probes = self._around(x, task, observation.step_index + 1)
        return {"x": x, "velocity": velocity, "rate": rate, "recent": recent, "probes": probes}

    def over(self, state: State, step_index: Tensor) -> Tensor:
        return (step_index + 2) * (1 + self.probes) > self.queries
