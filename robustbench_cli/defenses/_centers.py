"""Max-Mahalanobis centers, and a last layer that gives the distances of features to them."""

import torch
from torch import Tensor, nn

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.losses import wide
from robustbench_cli.models import Classifier


def centers(classes: int, dim: int) -> Tensor:
    """Return unit vectors (classes, dim), float64, one per class, as far apart as possible.

    They are the corners of a regular simplex: the cosine of any two is -1 / (classes - 1).
    Algorithm 1 of Pang et al. (2018), https://arxiv.org/abs/1802.09308.

    Raises:
        UserError: ``dim`` is below classes - 1, which a regular simplex needs.
    """
    if dim < classes - 1:
        raise UserError(f"{classes} classes need centers of at least {classes - 1} dimensions")
    found = torch.zeros(classes, dim, dtype=torch.float64)
    for j in range(classes - 1):
        found[j, j] = (1 - found[j].square().sum()).sqrt()
        later = found[j + 1 :]
        later[:, j] = -(1 / (classes - 1) + later @ found[j]) / found[j, j]
    return found


def replace_head(model: Classifier, dim: int, scale: float) -> Classifier:
    """Replace a linear head by a :class:`CenterHead` whose centers have norm ``scale``.

    Raises:
        UserError: the head is not linear, or ``dim`` is too small for the number of classes.
    """
    head = model.head
    if not isinstance(head, nn.Linear):
        raise UserError("mmc replaces a linear last layer, but another part already did")
    known = scale * centers(head.out_features, dim)
    model.head = CenterHead(head.in_features, known).to(head.weight)
    return model


class CenterHead(nn.Module):
    """Map features (B, F) to z (B, dim) and return logits -||z - center||^2 (B, classes)."""

    centers: Tensor

    def __init__(self, features: int, known: Tensor) -> None:
        """Set up the dense layer.

        Args:
            known: the fixed centers (classes, dim); they are not trained.
        """
        super().__init__()
        self.dense = nn.Linear(features, known.shape[1])
        nn.init.kaiming_normal_(self.dense.weight)
        nn.init.zeros_(self.dense.bias)
        self.register_buffer("centers", known)

    def forward(self, features: Tensor) -> Tensor:
        """Return the negative squared distances (B, classes) of features (B, F) to the centers."""
        z = wide(self.dense(features))
        return -(z[:, None] - self.centers).square().sum(2)
