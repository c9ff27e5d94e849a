"""Cosine annealing (Loshchilov & Hutter, 2017), https://arxiv.org/abs/1608.03983."""

import math
from dataclasses import dataclass

from robustbench_cli.optim import SCHEDULES, Fraction, Schedule


@SCHEDULES.register("cosine")
@dataclass(frozen=True, kw_only=True)
class Cosine(Schedule):
    """Anneal along half a cosine from the full rate to zero, or to ``floor``.

    Carmon et al. (2019) update it once per epoch; Hendrycks et al. (2019) end at 1e-6, which is a
    floor of 1e-5 at a rate of 0.1.
    """

    floor: Fraction = 0.0
    """The final rate as a share of the full rate."""

    def factor(self, t: float) -> float:
        return half_cosine(1.0, self.floor, t)


def half_cosine(begin: float, end: float, t: float) -> float:
    """Go from ``begin`` to ``end`` along half a cosine as ``t`` goes from 0 to 1."""
    return end + (begin - end) * 0.5 * (1 + math.cos(math.pi * t))
