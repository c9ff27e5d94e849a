"""A wider last layer, and class prototypes that learn on both sides of what was added."""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.losses import picked
from robustbench_cli.models import Classifier


def widen_head(model: Classifier, dim: int) -> Classifier:
    """Put a dense layer to ``dim`` features, without a nonlinearity, before a linear head.

    Raises:
        UserError: the head is not linear.
    """
    if not isinstance(model.head, nn.Linear):
        raise UserError("pcl widens a linear last layer, but another part already replaced it")
    dense = nn.Linear(model.head.in_features, dim)
    scores = nn.Linear(dim, model.head.out_features)
    head = nn.Sequential(OrderedDict(dense=dense, scores=scores))
    model.head = head.to(model.head.weight)
    return model


class Prototypes(nn.Module):
    """A point per class to be near to and one to be far from, before and after the dense layer."""

    def __init__(self, head: nn.Module) -> None:
        """For a widened head."""
        super().__init__()
        dense, scores = (p for p in head.parameters() if p.ndim == 2)

        def drawn() -> nn.ParameterList:
            widths = dense.shape[1], dense.shape[0]
            return nn.ParameterList(dense.new_empty(len(scores), n).normal_() for n in widths)

        self.near, self.far = drawn(), drawn()

    @torch.no_grad()
    def move(self, near: float, far: float) -> None:
        """One plain step down each gradient there is, at these rates."""
        for params, rate in ((self.near, near), (self.far, far)):
            for p in params:
                if p.grad is not None:
                    p.sub_(rate * p.grad)
                    p.grad = None


def own(features: Tensor, prototypes: Tensor, y: Tensor) -> Tensor:
    """The squared distance (B) of features (B, F) to their class's prototype of (classes, F)."""
    return (features - prototypes[y]).square().sum(1)


def distance_to_others(features: Tensor, prototypes: Tensor, y: Tensor) -> Tensor:
    """The mean squared distance (B) of features (B, F) to the other classes' prototypes."""
    squared = (features[:, None] - prototypes).square().sum(2)
    return (squared.sum(1) - picked(squared, y)) / (len(prototypes) - 1)
