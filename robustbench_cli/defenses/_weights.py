"""Taking the gradient at weights that were moved: what AWP, AMP, SAM and RWP share."""

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
    """Weights that are moved before the gradient is taken, and put back."""

    def check(self, recipe: Recipe, epochs: int) -> None:
        movers = [part for part in recipe.modifiers if isinstance(part, WeightPerturbation)]
        if len(movers) > 1:
            names = " and ".join(repr(DEFENSES.name_of(part)) for part in movers)
            raise UserError(f"{names} both move the weights to take the gradient there; use one")

    def idle(self, step: Step) -> bool:
        """Whether this step is trained without it."""
        return False

    def movable(self, model: Classifier) -> list[Tensor]:
        """The weights that are moved: all that are trained."""
        return [p for p in model.parameters() if p.requires_grad]

    @abstractmethod
    def moves(self, step: Step, params: list[Tensor], loss: Callable[[], Tensor]) -> list[Tensor]:
        """What is added to each of ``params``, shaped as they are."""

    @contextmanager
    def weights(self, step: Step, loss: Callable[[], Tensor]) -> Iterator[None]:
        if self.idle(step):
            yield
            return
        params = self.movable(step.model)
        with move_weights(params, self.moves(step, params, loss)):
            yield


def slope(
    step: Step, params: Sequence[Tensor], loss: Callable[[], Tensor], mode: Mode = "frozen"
) -> tuple[Tensor, ...]:
    """The gradient of the loss at the weights as they are, over all processes' rows."""
    with borrowed(step.model, mode):
        found = torch.autograd.grad(loss(), params, materialize_grads=True)
    step.shard.all_reduce_sum_(found)
    return found


@contextmanager
def move_weights(params: list[Tensor], moves: list[Tensor]) -> Iterator[None]:
    """Lend ``params`` with ``moves`` added; a step that they make meanwhile is kept.

    Weights that made none come back bit for bit.
    """
    with torch.no_grad():
        home = [p.clone() for p in params]
        there = torch._foreach_add(home, moves)
        torch._foreach_copy_(params, there)
    try:
        yield
    finally:
        with torch.no_grad():
            torch._foreach_sub_(params, there)
            torch._foreach_add_(params, home)


def weight_norm(tensors: Sequence[Tensor]) -> Tensor:
    """The Euclidean norm of all of them as one vector."""
    norm: Tensor = torch.linalg.vector_norm(torch.stack([t.norm() for t in tensors]))
    return norm
