"""The one-cycle policy (Smith & Topin, 2018), https://arxiv.org/abs/1708.07120."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from robustbench_cli.core.registry import Number
from robustbench_cli.optim import SCHEDULES, Fraction, Schedule
from robustbench_cli.optim.cosine import half_cosine


@SCHEDULES.register("one-cycle")
@dataclass(frozen=True, kw_only=True)
class OneCycle(Schedule):
    """Rise along half a cosine and fall along half a cosine to almost zero, as in PyTorch.

    The momentum stays constant, where Smith & Topin lower it as the rate rises.
    """

    peak: Annotated[Number, Field(gt=0, lt=1)] = 0.3
    """Share of the run at which the rate is highest."""
    first: Fraction = 1 / 25
    """The initial rate as a share of the full rate."""
    final: Fraction = 1 / 250_000
    """The final rate as a share of the full rate."""

    def factor(self, t: float) -> float:
        if t < self.peak:
            return half_cosine(self.first, 1.0, t / self.peak)
        return half_cosine(1.0, self.final, (t - self.peak) / (1 - self.peak))
