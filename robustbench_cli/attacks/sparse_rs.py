"""Sparse-RS, search over few pixels (Croce et al., 2022), https://arxiv.org/abs/2006.12834."""

from dataclasses import dataclass
from functools import cache
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from robustbench_cli.attacks import ATTACKS, Access, IterativeAttack, Observation, State, Task
from robustbench_cli.core.registry import Number
from robustbench_cli.core.threat import over

_SCHEDULE = {0: 2, 50: 4, 200: 5, 500: 6, 1000: 8, 2000: 10, 4000: 12, 6000: 15, 8000: 20}
"""What the first share of moved pixels is divided by after so many of 10,000 queries."""


@ATTACKS.register("sparse-rs", pattern=r"sparse-rs-?(?P<queries>\d+)")
@dataclass(frozen=True, kw_only=True)
class SparseRS(IterativeAttack):
    """Random search under L0 that needs logits only: which pixels change, and to which corner.

    It begins with ``eps`` random pixels, each channel 0 or 1.  Each query gives some of them back
    and takes as many others, with new colours, and is kept if the margin of the true class falls.
    The share that is exchanged falls as in the authors' code, by a schedule for 10,000 queries that
    is scaled to ``queries``; each image has a search of its own.
    """

    queries: Annotated[int, Field(ge=1)] = 10_000
    """Forward passes per example, the starting point among them."""
    share: Annotated[Number, Field(gt=0, le=1)] = 0.3
    """Share of the pixels that the first queries exchange (alpha_init)."""

    norms: ClassVar[tuple[str, ...]] = ("L0",)
    access: ClassVar[Access] = "logits"

    @property
    def planned_passes(self) -> int:
        return self.queries

    def begin(self, task: Task) -> State:
        draw = self._allowed(task, task.noise.fork("place").uniform(task.x[:, 0]))
        taken = _largest(draw, torch.full_like(task.y, int(task.threat.eps)))
        colour = task.noise.fork("colour").uniform(task.x).round()
        unknown = torch.full_like(task.clean[:, 0], -torch.inf)
        first = torch.where(taken[:, None], colour, task.x)
        return {"x": first, "taken": taken, "best": first, "kept": taken, "margin": unknown}

    def move(self, state: State, observation: Observation, task: Task) -> State:
        margin = observation.loss.to(state["margin"])
        accept = (margin > state["margin"]) | (margin >= 0)
        best = torch.where(over(accept, task.x), state["x"], state["best"])
        kept = torch.where(over(accept, state["kept"]), state["taken"], state["kept"])
        noise = task.noise.at(observation.step_index)
        count = self._exchanged(observation.step_index + 1, int(task.threat.eps))
        back = _largest(noise.fork("back").uniform(task.x[:, 0]) * kept, count)
        fresh = self._allowed(task, noise.fork("fresh").uniform(task.x[:, 0]))
        new = _largest(fresh * ~kept, count)
        colour = noise.fork("colour").uniform(task.x).round()
        # A single pixel must get another colour than its own.
        same = (colour == task.x).all(1, keepdim=True) & over(count == 1, task.x)
        x = torch.where(back[:, None], task.x, best)
        x = torch.where(new[:, None], torch.where(same, 1 - colour, colour), x)
        margin = torch.where(accept, margin, state["margin"])
        return {"x": x, "taken": kept & ~back | new, "best": best, "kept": kept, "margin": margin}

    def over(self, state: State, step_index: Tensor) -> Tensor:
        return step_index >= self.queries - 1

    def _exchanged(self, query: Tensor, pixels: int) -> Tensor:
        """Return how many pixels each query (B, int64) exchanges."""
        at = (query * 10_000).div(self.queries, rounding_mode="floor")
        marks, parts = _schedule(at.device)
        share = self.share / parts[(at[:, None] > marks).sum(1)]
        return (share * pixels).long().clamp_min(1)

    def _allowed(self, task: Task, draw: Tensor) -> Tensor:
        """Return scores (B, H, W) above 0 at the pixels that may change, and 0 elsewhere."""
        return task.threat.allowed((draw + 1)[:, None].expand_as(task.x)).amax(1)


@cache
def _schedule(device: torch.device) -> tuple[Tensor, Tensor]:
    """The numbers of queries at which the share changes (S), and its divisors (S + 1), int64."""
    marks = torch.tensor(list(_SCHEDULE), device=device)
    return marks, torch.tensor([1, *_SCHEDULE.values()], device=device)


def _largest(score: Tensor, count: Tensor) -> Tensor:
    """Return the pixels with the largest scores above 0, ``count`` (B) of them, bool (B, H, W)."""
    flat = score.flatten(1)
    rank = flat.argsort(dim=1, descending=True, stable=True).argsort(dim=1, stable=True)
    return ((rank < count[:, None]) & (flat > 0)).view_as(score)
