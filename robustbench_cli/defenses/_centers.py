"""A last layer that compares features with fixed centers, one per class."""

import torch
from torch import Tensor, nn

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.losses import wide
from robustbench_cli.models import Classifier


def centers(classes: int, dim: int) -> Tensor:
    """Unit vectors (classes, dim), float64, as far apart as can be: cosines are -1/(classes - 1).

    Algorithm 1 of Pang et al. (2018), https://arxiv.org/abs/1802.09308.

    Raises:
        UserError: there are too few dimensions; a regular simplex needs classes - 1.
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
    """Put a :class:`CenterHead` with centers of length ``scale`` in the place of a linear head.

    Raises:
        UserError: the head is not linear, or ``dim`` is too small for the classes.
    """
    head = model.head
    if not isinstance(head, nn.Linear):
        raise UserError("mmc replaces a linear last layer, but another part already did")
    known = scale * centers(head.out_features, dim)
    model.head = CenterHead(head.in_features, known).to(head.weight)
    return model


class CenterHead(nn.Module):
    """A dense layer to z (B, dim), and -||z - center||^2 for each center (classes, dim)."""

    centers: Tensor

    def __init__(self, features: int, known: Tensor) -> None:
        super().__init__()
        self.dense = nn.Linear(features, known.shape[1])
        nn.init.kaiming_normal_(self.dense.weight)
        nn.init.zeros_(self.dense.bias)
        self.register_buffer("centers", known)

    def forward(self, features: Tensor) -> Tensor:
        z = wide(self.dense(features))
        return -(z[:, None] - self.centers).square().sum(2)
