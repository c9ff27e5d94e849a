"""Rotations and translations (Engstrom et al., 2019), https://arxiv.org/abs/1712.02779."""

from dataclasses import dataclass
from functools import cache
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from robustbench_cli.attacks import ATTACKS, Access, IterativeAttack, Observation, State, Task
from robustbench_cli.core.poses import PoseLattice


@ATTACKS.register("spatial", positional="mode")
@dataclass(frozen=True, kw_only=True)
class Spatial(IterativeAttack):
    """Rotate and translate the image, and look which pose the model is wrong about.

    The grid is that of the authors' code: 5 x 5 translations and 31 angles, evenly spaced up to the
    limits of the threat, so 775 forward passes.  ``spatial:random`` tries 10 random poses instead,
    which the paper has for a weaker attack, not for an estimate of the grid.  Poses are points of
    the threat's lattice of a quarter of a pixel and half a degree: the authors' grid lies on it at
    eps 1, at others a pose is moved inward by less than a step, and random poses are uniform on it.

    An image counts as broken at its first wrong pose, the largest ones tried first; the authors'
    code goes on and keeps the wrong pose with the largest cross-entropy, which changes the image
    that is stored, but no verdict.
    """

    mode: Literal["grid", "random"] = "grid"
    """All poses of a grid, or random ones."""
    shifts: Annotated[int, Field(ge=1)] = 5
    """Translations of the grid in each direction."""
    angles: Annotated[int, Field(ge=1)] = 31
    """Rotations of the grid."""
    tries: Annotated[int, Field(ge=1)] = 10
    """Random poses."""

    norms: ClassVar[tuple[str, ...]] = ("spatial",)
    access: ClassVar[Access] = "logits"

    @property
    def maskable(self) -> bool:
        return False

    @property
    def planned_passes(self) -> int:
        return self.tries if self.mode == "random" else self.shifts**2 * self.angles

    def begin(self, task: Task) -> State:
        return {"x": self._posed(task, torch.zeros_like(task.y))}

    def move(self, state: State, observation: Observation, task: Task) -> State:
        return {"x": self._posed(task, observation.step_index + 1)}

    def over(self, state: State, step_index: Tensor) -> Tensor:
        return step_index >= self.planned_passes - 1

    def grid(self, lattice: PoseLattice, eps: float) -> Tensor:
        """Return the poses of the grid (P, 3) on the CPU, the largest first."""
        return _grid(lattice, eps, self.shifts, self.angles, torch.device("cpu"))

    def _posed(self, task: Task, number: Tensor) -> Tensor:
        """Return the images (B, C, H, W) in the poses with these numbers (B)."""
        lattice, eps = PoseLattice.of(tuple(task.x.shape)), task.threat.eps
        if self.mode == "random":
            poses = lattice.drawn(eps, task.x, task.noise.fork("pose").at(number))
        else:
            table = _grid(lattice, eps, self.shifts, self.angles, task.x.device)
            poses = table[number.clamp(max=len(table) - 1)]
        return lattice.rendered(task.x, poses)


@cache
def _grid(
    lattice: PoseLattice, eps: float, shifts: int, angles: int, device: torch.device
) -> Tensor:
    """The poses of a grid (P, 3), the largest first."""
    most, widest = lattice.within(eps)
    across, around = _spaced(most, shifts), _spaced(widest, angles)
    poses = torch.cartesian_prod(across, across, around)
    return poses[lattice.sizes(poses).argsort(descending=True, stable=True)].to(device)


def _spaced(most: int, count: int) -> Tensor:
    """Return ``count`` whole numbers (int64) from -most to most, evenly spaced, rounded inward."""
    if count == 1:
        return torch.zeros(1, dtype=torch.long)
    return torch.linspace(-most, most, count, dtype=torch.float64).mul(1 + 1e-9).trunc().long()
