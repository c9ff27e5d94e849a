"""Square Attack (Andriushchenko et al., 2020), https://arxiv.org/abs/1912.00049.

A score-based random search: each query redraws the perturbation in one square window and keeps it
if the margin of the true class falls.  L1 as in Croce & Hein (2021),
https://arxiv.org/abs/2103.01208.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from robustbench_cli.attacks import ATTACKS, Access, IterativeAttack, Observation, State, Task
from robustbench_cli.attacks._square import BUMP_POWERS, flipped, redrawn, striped, tiled
from robustbench_cli.attacks._windows import sides
from robustbench_cli.core.registry import Number
from robustbench_cli.core.threat import over


@ATTACKS.register("square", pattern=r"square-?(?P<queries>\d+)")
@dataclass(frozen=True, kw_only=True)
class Square(IterativeAttack):
    """Random search over square windows that needs logits only; masked gradients do not mislead it.

    Squares cover 0.8 of the image at first, as in AutoAttack, and their area is halved nine times.
    The paper's code halves it after fixed shares of the ``queries``, as here: a short search then
    reaches small squares, too.  AutoAttack's code halves it after the same numbers of queries
    however many there are, made for 10,000, so that its 5000 end with larger squares than a whole
    search: ``rescale=false``, as the member of ``autoattack`` has it and as other tools report for
    5000 queries.  Of 500 queries that schedule makes three of the nine halvings: a digits net is
    left with 90 % of the images where the default leaves 71 %.

    Each image has squares of its own, as in the paper's code; AutoAttack's code gives a whole batch
    the same ones.
    """

    queries: Annotated[int, Field(ge=1)] = 5000
    """Forward passes per example after the starting point."""
    share: Annotated[Number, Field(gt=0, le=1)] = 0.8
    """Share of the image's area that the first squares cover (p_init)."""
    restarts: Annotated[int, Field(ge=1)] = 1
    """Independent searches."""
    rescale: bool = True
    """Scale the schedule of the squares' area, made for 10,000 queries, to ``queries``; false: keep
    it as it is, as AutoAttack does."""

    access: ClassVar[Access] = "logits"

    @property
    def planned_passes(self) -> int:
        return self.queries

    def restarts_or_targets(self, classes: int) -> int:
        return self.restarts

    def begin(self, task: Task) -> State:
        start = tiled if task.threat.norm in BUMP_POWERS else striped
        unknown = torch.full_like(task.clean[:, 0], -torch.inf)
        first = start(task.x, task.threat, task.noise.fork("start"))
        return {"x": first, "best": task.x.clone(), "margin": unknown}

    def move(self, state: State, observation: Observation, task: Task) -> State:
        margin = observation.loss.to(state["margin"])
        # Accept the starting point, a strict improvement, or a misclassification.
        accept = (margin > state["margin"]) | (margin >= 0)
        best = torch.where(over(accept, task.x), state["x"], state["best"])
        odd, shape = task.threat.norm in BUMP_POWERS, (task.x.shape[2], task.x.shape[3])
        table = sides(self.queries, self.share, shape, odd, self.rescale, best.device)
        side = table[observation.step_index.clamp(max=self.queries - 1)]
        propose = redrawn if odd else flipped
        noise = task.noise.fork("query").at(observation.step_index)
        return {
            "x": propose(best, task.x, side, task.threat, noise),
            "best": best,
            "margin": torch.where(accept, margin, state["margin"]),
        }

    def over(self, state: State, step_index: Tensor) -> Tensor:
        return step_index >= self.queries
