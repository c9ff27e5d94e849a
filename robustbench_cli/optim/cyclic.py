"""A triangular learning rate (Wong et al., 2020), https://arxiv.org/abs/2001.03994."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from robustbench_cli.core.registry import Number
from robustbench_cli.optim import SCHEDULES, Schedule


@SCHEDULES.register("cyclic")
@dataclass(frozen=True, kw_only=True)
class Cyclic(Schedule):
    """Rise linearly from zero to the full rate at ``peak``, then fall linearly back to zero.

    ``peak=2/5`` is what Wong et al. use on MNIST and what Rice et al. (2020) call superconvergence.
    """

    peak: Annotated[Number, Field(gt=0, lt=1)] = 0.5
    """Share of the run at which the rate is highest."""

    def factor(self, t: float) -> float:
        return t / self.peak if t < self.peak else (1 - t) / (1 - self.peak)
