"""PGD on a patch of each image, over places (Levine & Feizi, 2020).

https://arxiv.org/abs/2002.10733: the attack that their certificates for patches stand beside.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from robustbench_cli.attacks import ATTACKS, Output, State, Task
from robustbench_cli.attacks._in_window import InWindow
from robustbench_cli.core.geometries._pixels import extremes, window_sums
from robustbench_cli.core.gradient_ascent import Steps


@ATTACKS.register("patch-pgd", pattern=r"patch-pgd-?(?P<steps>\d+)")
@dataclass(frozen=True, kw_only=True)
class PatchPGD(InWindow):
    """Sign steps of 0.05 on all values of a square window, at one place after the other.

    80 places of 150 steps, drawn for each image by itself, as in the authors' code for CIFAR-10;
    any wrong iterate counts, and places after a success are not tried.  That code looks at 150
    iterates of each place, this at one more, the last.

    ``location=exhaustive`` scores the windows at every pixel by one gradient step: what the loss,
    taken as linear at the clean image, gains if the window goes to the best values in [0, 1].  The
    ``restarts`` best ones are then attacked.
    """

    steps: Steps = 150
    restarts: Annotated[int, Field(ge=1)] = 80
    """Places that are tried."""
    location: Literal["random", "exhaustive"] = "random"
    """Random places, or the most promising ones of all."""

    nested_steps: ClassVar[bool] = False

    @property
    def opening(self) -> int:
        return int(self.location == "exhaustive")

    def loss(self, out: Output, state: State, task: Task, step_index: Tensor) -> Tensor:
        return task.cross_entropy(out)

    def places(self, task: Task, grad: Tensor) -> Tensor:
        side = int(task.threat.eps)
        if self.location == "exhaustive":
            gains = window_sums(extremes(task.x, grad)[1], side).flatten(1)
            rank = task.restart_or_target % gains.shape[1]
            return gains.argsort(dim=1, descending=True, stable=True)[:, rank]
        height, width = task.x.shape[2:]
        count = (height - side + 1) * (width - side + 1)
        draw = task.noise.fork("place").uniform(task.x.flatten(1)[:, :1]).squeeze(1)
        return (draw.double() * count).long().clamp(max=count - 1)
