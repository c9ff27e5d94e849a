"""Random corners of the ball, the control that Athalye et al. (2018) and Carlini et al. ask for.

https://arxiv.org/abs/1802.00420 and https://arxiv.org/abs/1902.06705 (2019): random points of the
ball must not break what a gradient attack left standing.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from robustbench_cli.attacks import ATTACKS, Access, IterativeAttack, Observation, State, Task


@ATTACKS.register("corners", aliases=("random-corners",), pattern=r"corners-?(?P<queries>\d+)")
@dataclass(frozen=True, kw_only=True)
class Corners(IterativeAttack):
    """Try random corners of the ball, one after the other, without learning from any of them.

    In Linf every pixel moves by +eps or -eps, in L2 the image moves by eps in a uniformly random
    direction, in L1 a twentieth of the pixels, drawn at random, move by equal amounts.  All are
    brought back to the box.  In L0 random pixels, and in a patch all of a random window, turn to 0
    or 1, each channel by itself.  It is weak on purpose: whatever it breaks after a gradient attack
    failed is a sign that gradients mislead.
    """

    queries: Annotated[int, Field(ge=1)] = 100
    """Corners, each of them a forward pass."""

    norms: ClassVar[tuple[str, ...]] = ("Linf", "L2", "L1", "L0", "patch")
    access: ClassVar[Access] = "logits"

    @property
    def no_target(self) -> str:
        return "random corners aim at no class"

    @property
    def planned_passes(self) -> int:
        return self.queries

    def begin(self, task: Task) -> State:
        return {"x": self._corner(task, 0 * task.y)}

    def move(self, state: State, observation: Observation, task: Task) -> State:
        return {"x": self._corner(task, observation.step_index + 1)}

    def over(self, state: State, step_index: Tensor) -> Tensor:
        return step_index >= self.queries - 1

    def _corner(self, task: Task, number: Tensor) -> Tensor:
        """Return the corners (B, C, H, W) with these numbers (B)."""
        # A random linear function is largest in a random corner, in any norm.
        slope = task.noise.fork("corner").at(number).normal(task.x)
        return task.threat.corner(task.x, slope)
