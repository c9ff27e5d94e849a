"""A head of two linear layers, as PCL has it (Mustafa et al., 2019).

https://arxiv.org/abs/1904.00887
"""

from collections import OrderedDict

from torch import nn


def wider_head(head: nn.Linear, dim: int) -> nn.Sequential:
    """Return a head of the same inputs and outputs with ``dim`` features between two layers.

    The layers are ``dense`` and ``scores``, without a nonlinearity between them.
    """
    dense = nn.Linear(head.in_features, dim)
    scores = nn.Linear(dim, head.out_features)
    return nn.Sequential(OrderedDict(dense=dense, scores=scores)).to(head.weight)


def dense_width(head: nn.Module) -> int | None:
    """Return the number of features between the layers of such a head; None for other heads."""
    if not isinstance(head, nn.Sequential) or [*dict(head.named_children())] != ["dense", "scores"]:
        return None
    dense = head.get_submodule("dense")
    return dense.out_features if isinstance(dense, nn.Linear) else None
