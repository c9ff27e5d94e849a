"""Random weight perturbation, the control experiment of AMP (RMP in Zheng et al., 2021),
https://arxiv.org/abs/2010.04925."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import Field
from torch import Tensor

from robustbench_cli.core.registry import Number
from robustbench_cli.defenses import DEFENSES
from robustbench_cli.defenses._step import Step
from robustbench_cli.defenses._weights import WeightPerturbation, weight_norm


@DEFENSES.register("rwp", aliases=("rmp",))
@dataclass(frozen=True, kw_only=True)
class RWP(WeightPerturbation):
    """Take the gradient at weights moved by ``radius`` in a random direction.

    The direction is Gaussian, over all trained weights as one vector.  A control: the gain of
    ``amp`` and ``sam`` over this comes from moving uphill.
    """

    radius: Annotated[Number, Field(ge=0)] = 0.5
    """Euclidean norm of the perturbation of all weights as one vector."""

    def idle(self, step: Step) -> bool:
        return self.radius == 0

    def perturbation(
        self, step: Step, params: list[Tensor], loss: Callable[[], Tensor]
    ) -> list[Tensor]:
        # One draw per batch and update, independent of the examples in the batch.
        shared = replace(step.noise, ids=step.noise.ids.new_zeros(1))
        noise = shared.fork(f"weights {step.batch} {step.update_index}")
        drawn = [noise.fork(i).normal(p.detach()[None])[0] for i, p in enumerate(params)]
        share = self.radius / (weight_norm(drawn) + 1e-12)
        return [share * d for d in drawn]
