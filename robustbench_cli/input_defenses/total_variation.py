"""Total variation minimisation (Guo et al., 2018), https://arxiv.org/abs/1711.00117.

The model of Rudin, Osher and Fatemi (1992), minimised as by Chambolle and Pock (2011, algorithm 1),
https://doi.org/10.1007/s10851-010-0251-1.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from robustbench_cli.core.registry import Number
from robustbench_cli.input_defenses import INPUT_DEFENSES, Backward, DefenseContext, InputDefense

_STEP = 8**-0.5
"""The length of both steps: their product times the squared norm of differences is at most 1."""


@INPUT_DEFENSES.register("total-variation", positional="weight")
@dataclass(frozen=True, kw_only=True)
class TotalVariation(InputDefense):
    """Drop pixels at random and show the smoothest image that agrees with the others.

    The image z minimises the sum of (z - x)^2 over pixels that are kept, plus ``weight`` times the
    total variation of z, the sum of the lengths of its gradient, channel by channel.  The paper
    takes the norm of whole rows and columns of differences instead of pixels.  Broken by the
    identity in the backward pass (Athalye et al., 2018, https://arxiv.org/abs/1802.00420).
    """

    hides: ClassVar[str] = "an optimisation, and pixels that are dropped at random"
    backwards: ClassVar[tuple[Backward, ...]] = ("straight-through", "exact")

    weight: Annotated[Number, Field(gt=0)] = 0.03
    """What a unit of total variation weighs, 0.03 as in the paper."""
    drop: Annotated[Number, Field(ge=0, lt=1)] = 0.5
    """The probability of dropping a pixel, all channels together; 0: nothing is random."""
    steps: Annotated[int, Field(ge=1)] = 50
    """Steps of the minimisation."""

    @property
    def randomised(self) -> bool:
        return self.drop > 0

    def cleaned(self, x: Tensor, context: DefenseContext) -> Tensor:
        kept = (context.noise.uniform(x[:, :1].detach()) >= self.drop).to(x)
        z = ahead = torch.where(kept > 0, x, _mean_of_kept(x, kept))
        across = down = torch.zeros_like(x)
        for _ in range(self.steps):
            across = across + _STEP * _forward(ahead, 3)
            down = down + _STEP * _forward(ahead, 2)
            # The larger of 1 and the length, without a root whose gradient is infinite at zero.
            square = (across.square() + down.square()) / self.weight**2
            longer = square.clamp_min(1).sqrt()
            across, down = across / longer, down / longer
            before = z
            z = z + _STEP * (_backward(across, 3) + _backward(down, 2))
            z = (z + 2 * _STEP * kept * x) / (1 + 2 * _STEP * kept)
            ahead = 2 * z - before
        return z.clamp(0, 1)


def _mean_of_kept(x: Tensor, kept: Tensor) -> Tensor:
    """The mean of the kept pixels around each one, where the minimisation begins; 0 without any."""
    around = F.avg_pool2d(kept, 3, 1, 1)
    return F.avg_pool2d(x * kept, 3, 1, 1) / around.clamp_min(1e-6)


def _forward(z: Tensor, axis: int) -> Tensor:
    """Differences to the next pixel along an axis of (B, C, H, W); zero at the last one."""
    return F.pad(z.diff(dim=axis), (0, 1) if axis == 3 else (0, 0, 0, 1))


def _backward(p: Tensor, axis: int) -> Tensor:
    """Minus the adjoint of ``_forward``: the divergence along an axis."""
    last = p.shape[axis] - 1
    inner = p.narrow(axis, 0, last)
    ends = ((0, 1), (1, 0)) if axis == 3 else ((0, 0, 0, 1), (0, 0, 1, 0))
    return F.pad(inner, ends[0]) - F.pad(inner, ends[1])
