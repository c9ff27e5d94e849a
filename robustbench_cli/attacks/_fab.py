"""The fast adaptive boundary attack, shared by its untargeted and targeted versions.

Croce & Hein (2020), https://arxiv.org/abs/1907.02044, algorithm 1.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from robustbench_cli.attacks import IterativeAttack, Observation, State, Task
from robustbench_cli.attacks._planes import to_plane
from robustbench_cli.core.free_looks import rows_to_work_on
from robustbench_cli.core.gradient_ascent import Steps
from robustbench_cli.core.registry import Number
from robustbench_cli.core.threat import Threat


@dataclass(frozen=True, kw_only=True)
class FABBase(IterativeAttack):
    """FAB without its choice of the boundary; parameters as in AutoAttack.

    Each step goes to a convex combination of the projections of the iterate and of the clean
    image onto the linearised decision boundary; an adversarial iterate is then moved back towards
    the clean image.  Unlike PGD it minimises the perturbation and needs no radius.
    """

    steps: Steps = 100
    """Projections onto the linearised boundary; each costs one or two passes of the model."""
    restarts: Annotated[int, Field(ge=1)] = 1
    """Starts: the first is the clean image, later ones are random within eps / 2."""
    alpha_max: Annotated[Number, Field(gt=0, le=1)] = 0.1
    """Largest weight of the clean image's projection in a step."""
    eta: Annotated[Number, Field(ge=1)] = 1.05
    """Overshoot: projections are extrapolated by this factor."""
    beta: Annotated[Number, Field(gt=0, lt=1)] = 0.9
    """An adversarial iterate keeps this share of its perturbation in the backward step."""
    within: bool = False
    """Accept any adversarial image inside the radius (as in AutoAttack) instead of looking for the
    nearest one."""

    @property
    def planned_passes(self) -> int:
        return 2 * self.steps

    def most_passes(self, classes: int) -> int:
        gradients = classes if self.access == "jacobian" else 1
        return (2 * self.steps + 1) * (1 + gradients)  # a step back after every projection

    def leaves_ball(self, threat: Threat) -> bool:
        return True

    @property
    def minimal(self) -> bool:
        return not self.within

    def restarts_or_targets(self, classes: int) -> int:
        return self.restarts

    def restart(self, task: Task) -> int:
        """Return the index of the restart, from 0."""
        return task.restart_or_target

    def begin(self, task: Task) -> State:
        x, threat = task.x, task.threat
        if self.restart(task):
            away = threat.direction(x, task.noise.fork("start"))
            x = (x + 0.5 * threat.eps * away).clamp(0, 1)
        # moved: the iterate comes from a projection, not from a backward step or the start;
        # moves: the number of projections so far; beyond: the last projection was misclassified;
        # glance: the iterate is looked at without a gradient first.
        no = task.y < 0
        return {"x": x.clone(), "moved": no, "moves": task.y * 0, "beyond": no, "glance": no}

    def spared(self, state: State) -> Tensor:
        # The step back needs no gradient, and where one projection was misclassified, the next one
        # mostly is.  Where it is not, the row is looked at again.
        return state["glance"]

    @abstractmethod
    def plane(self, observation: Observation, state: State, task: Task) -> tuple[Tensor, Tensor]:
        """Return the linearised boundary {z : <w, z - x> + f = 0} to go to.

        Returns:
            w (B, d) with d = C H W, the gradient of a logit difference, and f (B), its value at
            the iterate.
        """

    def move(self, state: State, observation: Observation, task: Task) -> State:
        moved, glance, x = state["moved"], state["glance"], task.x.flatten(1)
        wrong = observation.logits.argmax(1) != task.y
        back, here = moved & wrong, state["x"].flatten(1)
        on = ~back & ~glance
        w, f = self.plane(observation, state, task)
        rows = rows_to_work_on(on)
        there = self._projected(here[rows], x[rows], w[rows], f[rows], task.threat)
        to = here.clone()
        to[rows] = torch.where(on[rows, None], there, here[rows])
        rows = rows_to_work_on(back)
        nearer = x[rows] + self.beta * (here[rows] - x[rows])
        to[rows] = torch.where(back[rows, None], nearer, to[rows])
        beyond = torch.where(moved, wrong, state["beyond"])
        now = {"moved": ~back, "moves": state["moves"] + on, "beyond": beyond}
        return {**state, **now, "x": to.view_as(task.x), "glance": on & beyond}

    def _projected(self, here: Tensor, x: Tensor, w: Tensor, f: Tensor, threat: Threat) -> Tensor:
        """Return the iterates (B, d) after a step to the planes of iterate and clean image.

        Args:
            here: the iterates (B, d).
            x: the clean images (B, d).
            w, f: the boundaries, as ``plane`` returns them.
        """
        b = (w * here).sum(1) - f
        both = to_plane(torch.cat([here, x]), w.repeat(2, 1), b.repeat(2), threat.norm)
        near, far = both.chunk(2)
        length = threat.distance(both, torch.zeros_like(both)).clamp_min(1e-8)
        from_here, from_clean = length.chunk(2)
        alpha = (from_here / (from_here + from_clean)).clamp(0, self.alpha_max)[:, None]
        there = (1 - alpha) * (here + self.eta * near) + alpha * (x + self.eta * far)
        return there.clamp_(0, 1)

    def over(self, state: State, step_index: Tensor) -> Tensor:
        return state["moves"] >= self.steps
