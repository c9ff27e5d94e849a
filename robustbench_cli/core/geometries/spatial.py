"""The image itself, rotated and translated (Engstrom et al., 2019).

https://arxiv.org/abs/1712.02779
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.geometries import GEOMETRIES, Geometry, Room, over
from robustbench_cli.core.poses import PoseLattice, pose_sizes


@GEOMETRIES.register("spatial")
@dataclass(frozen=True)
class OnePose(Geometry):
    """Renderings of the image in a pose: rotated by at most 30 ``eps`` degrees, then moved.

    At ``eps`` 1 it is moved by at most 3 pixels each way in images of 28 or 32, and by 3/28 of the
    shorter side in others.  An image is inside if a pose of the lattice in ``core.poses`` renders
    it: the pixels alone decide, whatever an attack says.  The distance is the smallest ``eps`` at
    which there is one.
    """

    usual: ClassVar[float] = 1
    maskable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 < self.eps <= 1:
            raise UserError(
                "eps of the spatial threat is a part of the limits of 30 degrees and 3 pixels, "
                f"above 0 and at most 1, got {self.eps:g}"
            )

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        return pose_sizes(x_adv, x).to(x)

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return images that are allowed as they are, and the clean image in place of others."""
        return torch.where(over(self.holds(self.distance(x_adv, x)), x), x_adv, x)

    def drawn(self, x: Tensor, noise: Noise, room: Room) -> Tensor:
        lattice = PoseLattice.of(tuple(x.shape))
        return lattice.rendered(x, lattice.drawn(self.eps, x, noise.fork("pose")))

    def diameter(self, shape: tuple[int, ...]) -> float:
        return 1.0
