"""A constant learning rate."""

from dataclasses import dataclass

from robustbench_cli.optim import SCHEDULES, Schedule


@SCHEDULES.register("constant")
@dataclass(frozen=True, kw_only=True)
class Constant(Schedule):
    """Keep the same rate throughout."""

    def factor(self, t: float) -> float:
        return 1.0
