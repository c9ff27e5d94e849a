"""HopSkipJump (Chen et al., 2020), https://arxiv.org/abs/1904.02144.

A decision-based attack: at the border of the class it estimates the border's normal from predicted
classes around the image, takes a step along it, and goes back to the border by bisection.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from robustbench_cli.attacks import ATTACKS, State, Task
from robustbench_cli.attacks._decision import WALKING, DecisionAttack
from robustbench_cli.attacks._normals import directions, no_answers, normal, part_way, with_answer
from robustbench_cli.core.registry import Number
from robustbench_cli.core.threat import over

STEPPING, SEARCHING, SAMPLING = WALKING, WALKING + 1, WALKING + 2
FINEST = 1.5e-6
"""The least relative width of a bisection: pixels in float32 resolve no finer one."""
SHORTEST = 1e-4
"""The least step, as a fraction of the distance; where none leads to a wrong image the next round
begins from the same place.  The authors' code would halve it without end."""


@ATTACKS.register(
    "hop-skip-jump",
    aliases=("hsj",),
    pattern=r"(?:hop-skip-jump|hsj)-?(?P<queries>\d+)",
)
@dataclass(frozen=True, kw_only=True)
class HopSkipJump(DecisionAttack):
    """Walks along the border of the class by normals estimated from predicted classes.

    Round t (from 1) asks about min(100 sqrt(t), 10,000) images at the distance delta from the point
    at the border; the mean of their directions, weighted by +1 (wrong) and -1 less the mean weight,
    is the normal (equations 9 and 16).  The step along it, or in Linf along its signs, has the
    length distance / sqrt(t), halved until the image is wrong.  Schedules are those of the authors'
    code, which goes on for 40 rounds, some 17,000 queries.

    Foolbox 3.3.4 divides the normal by the norm over the whole batch, so that steps shrink with
    the batch size; ART 1.20.1 counts rounds through all images, so that from the second one on it
    begins with many queries per round, and it has ``theta`` at 0.01 / sqrt(d).
    """

    norms: ClassVar[tuple[str, ...]] = ("L2", "Linf")

    evaluations: Annotated[int, Field(ge=1)] = 100
    """Images around the point in the first round."""
    most_evaluations: Annotated[int, Field(ge=1)] = 10_000
    """The most images around the point in any round."""
    gamma: Annotated[Number, Field(gt=0)] = 1.0
    """Bisection ends at a width theta of the distance: gamma / d^1.5 in L2, gamma / d^2 in Linf,
    for d pixels, and not less than ``FINEST``; the images around a point are sqrt(d), or d, times
    as far away (in the first round 0.1)."""

    def first(self, task: Task) -> State:
        zero = torch.zeros_like(task.x[:, 0, 0, 0])
        shared = {"point": task.x, "step": 0 * task.x, "delta": zero, "size": zero}
        return {**shared, "round": 0 * task.y, **no_answers(task.x)}

    def walk(self, state: State, wrong: Tensor, task: Task, step_index: Tensor) -> State:
        clean, threat = task.x, task.threat
        stepping, searching, sampling = (
            state["phase"] == phase for phase in (STEPPING, SEARCHING, SAMPLING)
        )
        # A step, halved until it leads to a wrong image, which is then moved to the border.
        size = torch.where(stepping & ~wrong, state["size"] / 2, state["size"])
        distance = threat.distance(state["point"], clean)
        lost = stepping & ~wrong & (size <= SHORTEST * distance)
        arrived = stepping & wrong | lost
        known = torch.where(over(state["round"] > 0, clean), state["point"], state["wrong"])
        far = torch.where(over(arrived, clean), state["x"], state["wrong"])
        far = torch.where(over(lost, clean), known, far)
        # The bisection, in shares of that image's distance.
        middle = (state["low"] + state["high"]) / 2
        low = torch.where(searching & ~wrong, middle, state["low"])
        high = torch.where(searching & wrong, middle, state["high"])
        low, high = torch.where(arrived, 0, low), torch.where(arrived, 1, high)
        theta, spread = self._widths(task)
        there = searching & (high - low <= theta)
        point = torch.where(over(there, clean), part_way(far, task, high), state["point"])
        round_ = state["round"] + there.long()
        delta = torch.where(round_ == 1, 0.1, spread * theta * threat.distance(far, clean))
        delta = torch.where(there, delta, state["delta"])
        # Answers around the point, until there are enough of them for the next step.
        answers = with_answer(state, wrong, sampling)
        most = (self.evaluations * round_.to(clean).sqrt()).clamp(max=self.most_evaluations)
        full = sampling & (answers["asked"] >= most.long())
        step = torch.where(over(full, clean), threat.steepest(normal(answers)), state["step"])
        size = torch.where(full, distance / round_.to(clean).sqrt(), size)
        answers = {k: torch.where(over(there, v), 0, v) for k, v in answers.items()}
        phase = torch.where(full, STEPPING, torch.where(there, SAMPLING, state["phase"]))
        phase = torch.where(arrived, SEARCHING, phase)
        x = point + over(size, clean) * step
        between = part_way(far, task, (low + high) / 2)
        x = torch.where(over(phase == SEARCHING, clean), between, x)
        around = point + over(delta, clean) * directions(task, step_index + 1)
        x = torch.where(over(phase == SAMPLING, clean), around, x)
        moved = {"x": threat.restored(x.clamp(0, 1), clean), "wrong": far, "point": point}
        numbers = {"low": low, "high": high, "delta": delta, "size": size, "step": step}
        return {**moved, **numbers, **answers, "phase": phase, "round": round_}

    def _widths(self, task: Task) -> tuple[Tensor, Tensor]:
        """The width theta of a bisection, and how many times further off images are asked about."""
        size = torch.ones_like(task.x[:, 0, 0, 0]) * task.threat.dimensions(task.x)
        spread = size.sqrt() if task.threat.norm == "L2" else size
        return (self.gamma / (size * spread)).clamp_min(FINEST), spread
