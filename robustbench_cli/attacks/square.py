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
from robustbench_cli.attacks._square import BUMP_POWERS, Flips, Moves, striped, tiled
from robustbench_cli.attacks._windows import counted_up, sides
from robustbench_cli.core.free_looks import surely_all, surely_none
from robustbench_cli.core.registry import Number
from robustbench_cli.core.threat import Threat, over


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
        state = {"x": first, "best": task.x.clone(), "margin": unknown}
        return {**state, **self._squares(task, torch.zeros_like(task.y))}

    def move(self, state: State, observation: Observation, task: Task) -> State:
        margin = observation.loss.to(state["margin"])
        # Accept the starting point, a strict improvement, or a misclassification.
        accept = (margin > state["margin"]) | (margin >= 0)
        best = torch.where(over(accept, task.x), state["x"], state["best"])
        squares = {name: state[name] for name in state.keys() - {"x", "best", "margin"}}
        place = observation.step_index % _ahead(best.device)
        now = {
            name: each[counted_up(len(place), place.device), place]
            for name, each in squares.items()
        }
        return {
            "x": _kind(task.threat).proposed(best, task.x, now, task.threat),
            "best": best,
            "margin": torch.where(accept, margin, state["margin"]),
            **self._squares_after(squares, task, observation.step_index + 1),
        }

    def _squares(self, task: Task, query: Tensor) -> State:
        """The squares of the queries from number ``query`` (B) on, as many as are drawn at once."""
        odd, shape = task.threat.norm in BUMP_POWERS, (task.x.shape[2], task.x.shape[3])
        table = sides(self.queries, self.share, shape, odd, self.rescale, query.device)
        queries = query[:, None] + counted_up(_ahead(query.device), query.device)
        noise = task.noise.fork("query").at(query)
        side = table[queries.clamp(max=self.queries - 1)]
        return _kind(task.threat).drawn(task.x, side, task.threat, noise)

    def _squares_after(self, squares: State, task: Task, query: Tensor) -> State:
        """The squares where ``query`` (B) comes next: fresh ones for rows that used theirs up."""
        used = query % _ahead(query.device) == 0
        if surely_none(used):
            return squares
        if query.device.type != "cpu" or surely_all(used):
            return self._squares(task, query)
        rows = used.nonzero().squeeze(1)
        fresh = self._squares(task.only(rows), query[rows])
        return {name: each.index_copy(0, rows, fresh[name]) for name, each in squares.items()}

    def over(self, state: State, step_index: Tensor) -> Tensor:
        return step_index >= self.queries


def _kind(threat: Threat) -> type[Flips | Moves]:
    return Moves if threat.norm in BUMP_POWERS else Flips


def _ahead(device: torch.device) -> int:
    """Return the queries whose squares are drawn at once.

    On a CPU most of the time that a query's few numbers take is that of the calls.  A GPU would
    have to be asked whose are used up.
    """
    return 16 if device.type == "cpu" else 1
