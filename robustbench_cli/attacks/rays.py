"""RaySearch, RayS (Chen & Gu, 2020), https://arxiv.org/abs/2006.12792.

A decision-based attack: it asks for predicted classes only, never for logits or gradients.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from robustbench_cli.attacks import ATTACKS, Access, IterativeAttack, Observation, State, Task
from robustbench_cli.core.registry import Number
from robustbench_cli.core.threat import Threat, over


@ATTACKS.register("rays", pattern=r"rays-?(?P<queries>\d+)")
@dataclass(frozen=True, kw_only=True)
class RayS(IterativeAttack):
    """Search for the direction, among those of +1 and -1 per pixel, with the nearest border.

    It reads the predicted class only.  The signs of ever smaller blocks of pixels are turned round;
    a direction that is still wrong at the least distance so far is searched by bisection.  The
    distance is that in Linf, a success one inside the radius.  As in the authors' code, the first
    ray ends at the corner of the box, where images are only 0 and 1.
    """

    norms: ClassVar[tuple[str, ...]] = ("Linf",)
    access: ClassVar[Access] = "decision"

    queries: Annotated[int, Field(ge=1)] = 1000
    """Forward passes per example; the paper has 10,000."""
    tolerance: Annotated[Number, Field(gt=0, lt=1)] = 0.02
    """The width at which bisection ends, as a fraction of eps."""

    def leaves_ball(self, threat: Threat) -> bool:
        return True

    @property
    def no_target(self) -> str:
        return "a first ray hardly ever ends in a given class"

    @property
    def planned_passes(self) -> int:
        return self.queries

    def begin(self, task: Task) -> State:
        none, one = torch.zeros_like(task.y), torch.ones_like(task.x[:, 0, 0, 0])
        signs = torch.ones_like(task.x)
        start = {"signs": signs, "tried": signs, "best": one, "low": 0 * one, "high": one}
        counts = {"level": none, "block": none - 1, "search": none.bool()}
        return {"x": _ray(task, signs, one), "at": one, **start, **counts}

    def move(self, state: State, observation: Observation, task: Task) -> State:
        wrong = observation.logits.argmax(1) != task.y
        # The first look at a direction decides whether it is searched, each later one halves.
        low = torch.where(state["search"] & ~wrong, state["at"], state["low"])
        high = torch.where(wrong, state["at"], state["high"])
        going = (state["search"] | wrong) & (high - low > self.tolerance * task.threat.eps)
        nearer = (high < state["best"]) & ~going
        signs = torch.where(over(nearer, task.x), state["tried"], state["signs"])
        best = torch.where(nearer, high, state["best"])
        # What is searched goes on; all others turn the next block of the best direction.
        level, block = _next_block(state["level"], state["block"], task.x[0].numel())
        level = torch.where(going, state["level"], level)
        block = torch.where(going, state["block"], block)
        turned = _turned(signs, level, block)
        tried = torch.where(over(going, task.x), state["tried"], turned)
        at = torch.where(going, (low + high) / 2, best)
        return {
            "x": _ray(task, tried, at),
            "at": at,
            "signs": signs,
            "tried": tried,
            "best": best,
            "low": torch.where(going, low, 0.0),
            "high": torch.where(going, high, best),
            "level": level,
            "block": block,
            "search": going,
        }

    def over(self, state: State, step_index: Tensor) -> Tensor:
        return step_index >= self.queries - 1


def _ray(task: Task, signs: Tensor, at: Tensor) -> Tensor:
    """Images (B, C, H, W) at the distances ``at`` (B) along the signs, inside the box."""
    return task.threat.restored((task.x + over(at, task.x) * signs).clamp(0, 1), task.x)


def _next_block(level: Tensor, block: Tensor, pixels: int) -> tuple[Tensor, Tensor]:
    """The block after this one; after the last one, the first block of half the size (B, B)."""
    size = (pixels / 2.0 ** level.double()).ceil()
    done = (block + 1) * size >= pixels
    finest = 2.0 ** level.double() >= pixels
    return level + (done & ~finest).long(), torch.where(done, 0, block + 1)


def _turned(signs: Tensor, level: Tensor, block: Tensor) -> Tensor:
    """The signs (B, C, H, W) with those of one block turned round."""
    flat = signs.flatten(1)
    size = (flat.shape[1] / 2.0 ** level.double()).ceil()
    place = torch.arange(flat.shape[1], device=signs.device)
    inside = (place >= (block * size)[:, None]) & (place < ((block + 1) * size)[:, None])
    return torch.where(inside, -flat, flat).view_as(signs)
