"""Stepwise and piecewise linear schedules (Rice et al., 2020), https://arxiv.org/abs/2002.11569.

The schedules that they compare for adversarial training.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

import numpy as np
from pydantic import Field

from robustbench_cli.core.registry import Number
from robustbench_cli.optim import SCHEDULES, Fraction, Schedule

_ROUNDING = 1e-9
"""Tolerance for milestones: epoch 75 of 76 begins at t = 75/76 up to floating-point error."""


@SCHEDULES.register("piecewise")
@dataclass(frozen=True, kw_only=True)
class Piecewise(Schedule):
    """Multiply by ``gamma`` at each milestone (Rice et al., 2020: a half and three quarters)."""

    milestones: tuple[Fraction, ...] = (0.5, 0.75)
    """Shares of the run, e.g. ``[0.5, 0.75]``."""
    gamma: Annotated[Number, Field(gt=0)] = 0.1
    """The factor at each milestone."""

    def factor(self, t: float) -> float:
        return float(self.gamma ** sum(t >= m - _ROUNDING for m in self.milestones))


@SCHEDULES.register("multi-decay")
@dataclass(frozen=True, kw_only=True)
class MultiDecay(Schedule):
    """Fall in ``drops`` equal steps over the run (Rice et al., 2020: each takes a tenth)."""

    drops: Annotated[int, Field(ge=1)] = 10
    """Number of stretches with a constant rate."""

    def factor(self, t: float) -> float:
        return 1 - min(math.floor(t * self.drops + _ROUNDING), self.drops) / self.drops


@SCHEDULES.register("linear")
@dataclass(frozen=True, kw_only=True)
class Linear(Schedule):
    """Interpolate linearly between given points; by default a smoothed piecewise schedule.

    The default is the one of Rice et al. (2020), whose code rounds the thirds of the run down to
    whole epochs.
    """

    times: tuple[Fraction, ...] = (0.0, 1 / 3, 2 / 3, 1.0)
    """Shares of the run, in increasing order."""
    factors: tuple[Annotated[Number, Field(ge=0)], ...] = (1.0, 1.0, 0.1, 0.01)
    """The factor at each of them; constant before the first and after the last."""

    def __post_init__(self) -> None:
        """Check the points.

        Raises:
            ValueError: a different number of times and factors, or times that do not increase.
        """
        if not self.times or len(self.times) != len(self.factors):
            raise ValueError(f"{len(self.times)} times and {len(self.factors)} factors")
        if any(after <= before for before, after in pairwise(self.times)):
            raise ValueError("times must rise")

    def factor(self, t: float) -> float:
        return float(np.interp(t, self.times, self.factors))
