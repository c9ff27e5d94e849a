"""Square Attack (Andriushchenko et al., 2020), https://arxiv.org/abs/1912.00049.

A random search that needs logits only: in a square window the change is redrawn, and kept if the
margin falls.  L1 as in Croce & Hein (2021), https://arxiv.org/abs/2103.01208.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from robustbench_cli.attacks import ATTACKS, Access, IterativeAttack, Observation, State, Task
from robustbench_cli.attacks._square import ODD, flipped, redrawn, striped, tiled
from robustbench_cli.attacks._windows import sides
from robustbench_cli.core.registry import Number
from robustbench_cli.core.threat import over


@ATTACKS.register("square", pattern=r"square-?(?P<queries>\d+)")
@dataclass(frozen=True, kw_only=True)
class Square(IterativeAttack):
    """Settings of AutoAttack: 5000 queries, 0.8 of the image at first, halved at fixed queries.

    Every image has squares of its own; the official code gives a whole batch the same ones.
    """

    queries: Annotated[int, Field(ge=1)] = 5000
    """Images shown to the model after the first."""
    share: Annotated[Number, Field(gt=0, le=1)] = 0.8
    """Of the image that the first squares cover (p_init)."""
    restarts: Annotated[int, Field(ge=1)] = 1
    """Independent searches."""
    rescale: bool = False
    """Whether squares shrink by shares of ``queries``, not at fixed counts (out of 10,000)."""

    access: ClassVar[Access] = "logits"

    def restarts_or_targets(self, classes: int) -> int:
        return self.restarts

    def begin(self, task: Task) -> State:
        start = tiled if task.threat.norm in ODD else striped
        nothing = torch.full_like(task.clean[:, 0], -torch.inf)
        first = start(task.x, task.threat, task.noise.fork("start"))
        return {"x": first, "best": task.x.clone(), "gap": nothing}

    def move(self, state: State, observation: Observation, task: Task) -> State:
        gap = observation.loss.to(state["gap"])
        # The first one, an improvement, or a success; a tie is none.
        take = (gap > state["gap"]) | (gap >= 0)
        best = torch.where(over(take, task.x), state["x"], state["best"])
        odd, shape = task.threat.norm in ODD, (task.x.shape[2], task.x.shape[3])
        table = sides(self.queries, self.share, shape, odd, self.rescale, best.device)
        side = table[observation.step_index.clamp(max=self.queries - 1)]
        change = redrawn if odd else flipped
        noise = task.noise.fork("query").at(observation.step_index)
        return {
            "x": change(best, task.x, side, task.threat, noise),
            "best": best,
            "gap": torch.where(take, gap, state["gap"]),
        }

    def over(self, state: State, step_index: Tensor) -> Tensor:
        return step_index >= self.queries
