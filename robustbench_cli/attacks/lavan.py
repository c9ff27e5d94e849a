"""LaVAN, localized and visible adversarial noise (Karmon et al., 2018).

https://arxiv.org/abs/1801.02608
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from robustbench_cli.attacks import ATTACKS, Observation, Output, State, Task
from robustbench_cli.attacks._in_window import InWindow
from robustbench_cli.core import losses
from robustbench_cli.core.geometries._pixels import window_sums
from robustbench_cli.core.gradient_ascent import Steps


@ATTACKS.register("lavan", pattern=r"lavan-?(?P<steps>\d+)")
@dataclass(frozen=True, kw_only=True)
class LaVAN(InWindow):
    """Noise of any size in a small window away from the object, towards one wrong class.

    The loss is z_t - z_y; t is the most likely wrong class of the clean image, of the restart after
    that the next one, or the target that is given.  The window is the one that covers least of the
    object.  With ``--mask`` the object is what must stay, and a window with the fewest such pixels
    is taken; ``away`` says where the object is otherwise, and decides between equals.  The paper
    chooses places by hand, 2 % of an image in its corners (42 x 42 of 299 x 299 pixels; ``--eps``
    says the side).  Its step size and number of steps are not known to us: these are our own.
    """

    steps: Steps = 300
    restarts: Annotated[int, Field(ge=1)] = 3
    """Wrong classes that are aimed at, from the most likely one."""
    away: Literal["saliency", "centre"] = "saliency"
    """Where the object is: where the loss has its largest gradients at the clean image, or (centre)
    in the middle of the image."""

    @property
    def opening(self) -> int:
        return int(self.away == "saliency")

    def begin(self, task: Task) -> State:
        wrong = task.clean.shape[1] - 1
        return {**super().begin(task), "target": task.ranked(2 + task.restart_or_target % wrong)}

    def move(self, state: State, observation: Observation, task: Task) -> State:
        return {**super().move(state, observation, task), "target": state["target"]}

    def loss(self, out: Output, state: State, task: Task, step_index: Tensor) -> Tensor:
        return losses.lead(out.logits, task.y, state["target"])

    def places(self, task: Task, grad: Tensor) -> Tensor:
        side = int(task.threat.eps)
        covered = window_sums(self._object(task, grad), side).flatten(1)
        closed = 1 - task.threat.allowed(torch.ones_like(task.x)).amin(1)
        held = window_sums(closed, side).flatten(1).round()
        # Of equals a random one: the middle is as far from all four corners.
        tie = 1e-6 * task.noise.fork("tie").uniform(covered)
        covered = covered / covered.amax(1, keepdim=True).clamp_min(1e-12)
        return (held * 2 + covered + tie).argmin(1)

    def _object(self, task: Task, grad: Tensor) -> Tensor:
        """Return how much each pixel (B, H, W) belongs to the object, 0 or more."""
        if self.away == "saliency":
            return grad.abs().amax(1).to(task.x)
        height, width = task.x.shape[2:]
        down, right = (
            (torch.arange(side, device=task.x.device) - (side - 1) / 2).abs() / side
            for side in (height, width)
        )
        near = 1 - torch.maximum(down[:, None], right)
        return near.to(task.x).expand(len(task.x), height, width)
