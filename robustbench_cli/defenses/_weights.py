"""Weight perturbation: the gradient is taken at moved weights (AWP, AMP, SAM and RWP)."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.model_modes import Mode, borrowed
from robustbench_cli.defenses import DEFENSES, Modifier, Recipe
from robustbench_cli.defenses._step import Step
from robustbench_cli.models import Classifier


class WeightPerturbation(Modifier):
    """Move the weights before the gradient of the loss is taken, and restore them after."""

    def check(self, recipe: Recipe, epochs: int) -> None:
        movers = [part for part in recipe.modifiers if isinstance(part, WeightPerturbation)]
        if len(movers) > 1:
            names = " and ".join(repr(DEFENSES.name_of(part)) for part in movers)
            raise UserError(f"{names} both move the weights to take the gradient there; use one")

    def idle(self, step: Step) -> bool:
        """Return True for a step that is trained without a perturbation."""
        return False

    def perturbed_weights(self, model: Classifier) -> list[Tensor]:
        """Return the weights that are perturbed; by default all that are trained."""
        return [p for p in model.parameters() if p.requires_grad]

    @abstractmethod
    def perturbation(
        self, step: Step, params: list[Tensor], loss: Callable[[], Tensor]
    ) -> list[Tensor]:
        """Return the perturbation of each tensor in ``params``, of the same shape.

        Args:
            loss: evaluates the batch's mean loss at the current weights.
        """

    @contextmanager
    def weights(self, step: Step, loss: Callable[[], Tensor]) -> Iterator[None]:
        if self.idle(step):
            yield
            return
        params = self.perturbed_weights(step.model)
        with move_weights(params, self.perturbation(step, params, loss)):
            yield


def loss_gradient(
    step: Step, params: Sequence[Tensor], loss: Callable[[], Tensor], mode: Mode = "frozen"
) -> tuple[Tensor, ...]:
    """Return the gradient of the loss with respect to ``params``, summed over all processes.

    The weights, and in mode "frozen" BatchNorm's running statistics, stay as they are.
    """
    with borrowed(step.model, mode):
        found = torch.autograd.grad(loss(), params, materialize_grads=True)
    step.shard.all_reduce_sum_(found)
    return found


@contextmanager
def move_weights(params: list[Tensor], moves: list[Tensor]) -> Iterator[None]:
    """Add ``moves`` to ``params`` while the context is open, and take them off again at its end.

    An optimiser step made inside is kept.  Without one the weights are restored bit for bit.
    """
    with torch.no_grad():
        original = [p.clone() for p in params]
        moved = torch._foreach_add(original, moves)
        torch._foreach_copy_(params, moved)
    try:
        yield
    finally:
        with torch.no_grad():
            torch._foreach_sub_(params, moved)
            torch._foreach_add_(params, original)


def weight_norm(tensors: Sequence[Tensor]) -> Tensor:
    """Return the Euclidean norm (0-dim) of all tensors taken as one vector."""
    norm: Tensor = torch.linalg.vector_norm(torch.stack([t.norm() for t in tensors]))
    return norm
