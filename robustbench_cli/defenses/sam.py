"""Sharpness-aware minimisation (Foret et al., 2021), https://arxiv.org/abs/2010.01412, eq. 2."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor

from robustbench_cli.core.model_modes import frozen_batchnorm
from robustbench_cli.core.registry import Number
from robustbench_cli.defenses import DEFENSES
from robustbench_cli.defenses._step import Step
from robustbench_cli.defenses._weights import WeightPerturbation, loss_gradient, weight_norm


@DEFENSES.register("sam")
@dataclass(frozen=True, kw_only=True)
class SAM(WeightPerturbation):
    """Take the gradient at weights moved uphill by ``rho``, all of them as one vector.

    The optimiser uses the gradient at w + rho g / ||g||, with g the gradient of the loss at w.  A
    regulariser like ``amp``, but the perturbation always has its full norm.  BatchNorm's running
    statistics follow the pass at w, as in the official code.  That code adds weight decay to the
    loss that is ascended; here weight decay is the optimiser's and acts at w.
    """

    rho: Annotated[Number, Field(ge=0)] = 0.05
    """Euclidean norm of the perturbation."""

    def idle(self, step: Step) -> bool:
        return self.rho == 0

    def perturbation(
        self, step: Step, params: list[Tensor], loss: Callable[[], Tensor]
    ) -> list[Tensor]:
        grads = loss_gradient(step, params, loss, "train")
        share = self.rho / (weight_norm(grads) + 1e-12)
        return [share * g for g in grads]

    @contextmanager
    def weights(self, step: Step, loss: Callable[[], Tensor]) -> Iterator[None]:
        with super().weights(step, loss):
            if self.idle(step):
                yield
                return
            with frozen_batchnorm(step.model):
                yield
