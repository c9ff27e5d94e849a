"""Minimum-margin attack, MM (Gao et al., 2022), https://proceedings.mlr.press/v162/gao22b.html."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor

from robustbench_cli.attacks import ATTACKS, Output, State, Task
from robustbench_cli.attacks._apgd import APGD
from robustbench_cli.attacks._targeting import AimsAtClasses
from robustbench_cli.core import losses
from robustbench_cli.core.gradient_ascent import Steps


@ATTACKS.register("mm", pattern=r"mm-?(?P<targets>\d+)")
@dataclass(frozen=True, kw_only=True)
class MinimumMargin(AimsAtClasses, APGD):
    """Auto-PGD on z_t - z_y towards the most likely wrong classes one by one: mm3, mm9.

    The margin itself is climbed, without the denominator of ``apgd-t``, and 20 steps are enough for
    most images: mm3 costs 60 gradient steps where AutoAttack's APGD-T alone costs 900.
    """

    steps: Steps = 20
    """Gradient steps towards each class."""
    targets: Annotated[int, Field(ge=1)] = 3
    """Number of target classes; all wrong classes if there are fewer."""

    def restarts_or_targets(self, classes: int) -> int:
        return self.restarts * min(self.targets, classes - 1)

    def begin(self, task: Task) -> State:
        rank = 2 + task.restart_or_target // self.restarts  # 1 is the predicted class
        return {**super().begin(task), "target": task.ranked(rank)}

    def loss(self, out: Output, state: State, task: Task, step_index: Tensor) -> Tensor:
        return losses.lead(out.logits, task.y, state["target"])


@ATTACKS.register("mm+")
@dataclass(frozen=True, kw_only=True)
class ThoroughMinimumMargin(MinimumMargin):
    """The minimum-margin attack with 100 steps towards each of nine classes."""

    steps: Steps = 100
    """Gradient steps towards each class."""
    targets: Annotated[int, Field(ge=1)] = 9
    """Number of target classes; all wrong classes if there are fewer."""
