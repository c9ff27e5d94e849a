"""Momentum iterative FGSM, MI-FGSM (Dong et al., 2018), https://arxiv.org/abs/1710.06081."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from robustbench_cli.attacks import ATTACKS, State, Task
from robustbench_cli.attacks.pgd import PGD
from robustbench_cli.core.gradient_ascent import Start, Steps
from robustbench_cli.core.registry import Number
from robustbench_cli.core.threat import over


@ATTACKS.register("mim", aliases=("mi-fgsm",), pattern=r"(?:mim|mi-fgsm)-?(?P<steps>\d+)")
@dataclass(frozen=True, kw_only=True)
class MIM(PGD):
    """Iterated FGSM on an accumulated gradient (momentum), from the clean image.

    Each gradient is divided by its mean magnitude before it is added (equation 6 of the paper,
    which divides by the L1 norm; under Linf the constant does not matter).  ``step=0``, the
    default, is the paper's eps / steps.
    """

    nested_steps: ClassVar[bool] = True  # with ``step`` given: otherwise the step size differs

    steps: Steps = 10
    step: Annotated[Number, Field(ge=0)] = 0.0
    """Step size as a fraction of eps; 0: 1 / steps."""
    start: Start = "clean"
    decay: Annotated[Number, Field(ge=0)] = 1.0
    """The momentum's decay factor, mu."""

    @property
    def stride(self) -> float:
        return self.step or 1 / self.steps

    def begin(self, task: Task) -> State:
        return {**super().begin(task), "velocity": torch.zeros_like(task.x)}

    def direction(self, grad: Tensor, state: State, task: Task) -> tuple[Tensor, State]:
        size = grad.abs().flatten(1).mean(1)
        # Without the 1e-12 a single all-zero gradient would make the momentum NaN for good.
        velocity = self.decay * state["velocity"] + grad / over(size + 1e-12, grad)
        return velocity, {"velocity": velocity}
