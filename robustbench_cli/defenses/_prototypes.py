"""Class prototypes of the prototype conformity loss, and the wider head that it is applied to.

Mustafa et al. (2019), https://arxiv.org/abs/1904.00887.
"""

import torch
from torch import Tensor, nn

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.losses import picked
from robustbench_cli.models import Classifier
from robustbench_cli.models._dense_head import dense_width, wider_head


def widen_head(model: Classifier, dim: int) -> Classifier:
    """Insert a linear layer to ``dim`` features, without a nonlinearity, before a linear head.

    A network that has such a layer by itself (``resnet-110:dense=1024``) stays as it is.

    Raises:
        UserError: the head is not linear, or the network's own layer has another width.
    """
    width = dense_width(model.head)
    if width is not None and width != dim:
        raise UserError(f"pcl: the network has a layer of {width} features, not dim={dim}")
    if width is None:
        if not isinstance(model.head, nn.Linear):
            raise UserError("pcl widens a linear last layer, but another part already replaced it")
        model.head = wider_head(model.head, dim)
    return model


class Prototypes(nn.Module):
    """Trainable prototypes per class, before and after the dense layer: one set attracts, one
    repels.

    ``near`` and ``far`` each hold a tensor (classes, F) for the features that the dense layer reads
    and one for those that it puts out.
    """

    def __init__(self, head: nn.Module) -> None:
        """Draw all prototypes from N(0, 1).

        Args:
            head: a head that :func:`widen_head` made.
        """
        super().__init__()
        dense, scores = (p for p in head.parameters() if p.ndim == 2)

        def drawn() -> nn.ParameterList:
            widths = dense.shape[1], dense.shape[0]
            return nn.ParameterList(dense.new_empty(len(scores), n).normal_() for n in widths)

        self.near, self.far = drawn(), drawn()

    @torch.no_grad()
    def move(self, near: float, far: float) -> None:
        """Take one plain SGD step with the gradients that are there, and clear them.

        Args:
            near: learning rate of the attracting prototypes.
            far: learning rate of the repelling ones.
        """
        for params, rate in ((self.near, near), (self.far, far)):
            for p in params:
                if p.grad is not None:
                    p.sub_(rate * p.grad)
                    p.grad = None


def distance_to_own(features: Tensor, prototypes: Tensor, y: Tensor) -> Tensor:
    """Return the squared distance (B) of each example's features to the prototype of its class.

    Args:
        features: (B, F).
        prototypes: (classes, F).
        y: labels (B).
    """
    return (features - prototypes[y]).square().sum(1)


def distance_to_others(features: Tensor, prototypes: Tensor, y: Tensor) -> Tensor:
    """Return the mean squared distance (B) of each example's features to the other classes'
    prototypes.

    Args:
        features: (B, F).
        prototypes: (classes, F).
        y: labels (B).
    """
    squared = (features[:, None] - prototypes).square().sum(2)
    return (squared.sum(1) - picked(squared, y)) / (len(prototypes) - 1)
