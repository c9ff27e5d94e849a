"""Simultaneous perturbation stochastic approximation as an attack (Uesato et al., 2018).

https://arxiv.org/abs/1802.05666.  It needs logits only, so masked gradients do not stop it.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from robustbench_cli.attacks import ATTACKS, Access, IterativeAttack, Observation, State, Task
from robustbench_cli.core.gradient_ascent import Steps
from robustbench_cli.core.losses import margin
from robustbench_cli.core.registry import Number
from robustbench_cli.core.threat import over


@ATTACKS.register("spsa", pattern=r"spsa-?(?P<steps>\d+)")
@dataclass(frozen=True, kw_only=True)
class SPSA(IterativeAttack):
    """Adam on the perturbation, with the margin's slope along random signs as its gradient.

    The paper has no single setting; these are the usual 0.01 and 0.01 with enough samples to be
    an attack at all (several libraries default to a single step): 26,000 forward passes for an
    example that holds.  The AWP and MART tables use ``spsa:c=0.001``; the paper goes up to 8192
    samples, ``spsa:pairs=4096``.
    """

    access: ClassVar[Access] = "logits"

    steps: Steps = 100
    """Adam steps."""
    pairs: Annotated[int, Field(ge=1)] = 128
    """Random directions per step; each costs two forward passes."""
    c: Annotated[Number, Field(gt=0)] = 0.01
    """How far along a direction the model is asked, in pixel units."""
    lr: Annotated[Number, Field(gt=0)] = 0.01
    """Adam's step size in pixel units, not a share of eps."""
    restarts: Annotated[int, Field(ge=1)] = 1
    """Independent starts; each works on what the ones before it left standing."""

    @property
    def probes(self) -> int:
        return 2 * self.pairs

    def restarts_or_targets(self, classes: int) -> int:
        return self.restarts

    def begin(self, task: Task) -> State:
        x = task.threat.random_start(task.x, task.noise.fork("start"))
        probes = self._around(x, task, torch.zeros_like(task.y))
        return {"x": x, "mean": 0 * x, "square": 0 * x, "probes": probes}

    def _around(self, x: Tensor, task: Task, turn: Tensor) -> Tensor:
        like = x[:, None].expand(-1, self.pairs, *x.shape[1:])
        coin = task.noise.fork("probe").at(turn).uniform(like)
        offset = self.c * ((coin < 0.5).to(x) * 2 - 1)
        # Not clipped to the box: at its border the two sides would no longer be a pair.
        return torch.cat([like + offset, like - offset], 1)

    def move(self, state: State, observation: Observation, task: Task) -> State:
        rise = slopes(state["probes"], observation.probes, task.y, self.c)
        mean = 0.9 * state["mean"] + 0.1 * rise
        square = 0.999 * state["square"] + 0.001 * rise**2
        # Examples side by side are at different steps, so each has its own bias correction.
        t = over(observation.step_index + 1, mean).to(mean)
        step = (mean / (1 - 0.9**t)) / ((square / (1 - 0.999**t)).sqrt() + 1e-8)
        x = task.threat.project(state["x"] + self.lr * step, task.x)
        probes = self._around(x, task, observation.step_index + 1)
        return {"x": x, "mean": mean, "square": square, "probes": probes}

    def over(self, state: State, step_index: Tensor) -> Tensor:
        return step_index >= self.steps


def slopes(probes: Tensor, logits: Tensor, y: Tensor, radius: float) -> Tensor:
    """The margin's gradient (B, C, H, W) as its differences across pairs of probes show it.

    Args:
        probes: (B, 2n, C, H, W), n images, then their mirror images; with ``logits`` (B, 2n, K).
        radius: what the random directions were multiplied by.
    """
    height = margin(logits.flatten(0, 1), y.repeat_interleave(probes.shape[1]))
    up, down = height.view(probes.shape[:2]).to(probes).chunk(2, 1)
    # The directions are read off the probes, so they need neither be kept nor drawn again.
    ahead, behind = probes.chunk(2, 1)
    rise = torch.einsum("bq,bqchw->bchw", up - down, ahead - behind)
    return rise / (4 * radius**2 * up.shape[1])
