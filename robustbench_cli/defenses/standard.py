"""Standard training on clean images: the baseline of every defense."""

from dataclasses import dataclass

from torch import Tensor

from robustbench_cli.defenses import DEFENSES, Objective
from robustbench_cli.defenses._step import Passes, Step


@DEFENSES.register("standard", aliases=("natural",))
@dataclass(frozen=True, kw_only=True)
class Standard(Objective):
    """The criterion on clean images."""

    def loss(self, step: Step, logits: Passes) -> Tensor:
        return step.criterion(logits["clean"], step.y)
