"""Losses of metric learning, from pytorch-metric-learning, on given triplets."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

from torch import Tensor

from robustbench_cli.metric_learning._package import package_part
from robustbench_cli.metric_learning._step import Triplets

MetricLossName = Literal["triplet", "contrastive"]
MetricLoss = Callable[[Tensor, Tensor, Triplets], Tensor]
"""(embeddings (M, D), labels (M), triplets) to the loss (0-dim)."""

_LOSSES: Mapping[str, Callable[[Any, float, Any], Any]] = {
    "triplet": lambda losses, margin, distance: losses.TripletMarginLoss(
        margin=margin, distance=distance
    ),
    "contrastive": lambda losses, margin, distance: losses.ContrastiveLoss(
        pos_margin=0.0, neg_margin=margin, distance=distance
    ),
}


def distance_of(unit: bool) -> Any:
    """Return the package's Euclidean distance, of embeddings scaled to norm 1 or as they are."""
    return package_part("distances").LpDistance(normalize_embeddings=unit, p=2, power=1)


def metric_loss(name: MetricLossName, margin: float, unit: bool) -> MetricLoss:
    """Return a loss: its mean over the triplets (or pairs) whose own loss is above 0.

    Args:
        margin: of triplets, or of negative pairs, in units of the distance.
        unit: whether embeddings have norm 1.

    Raises:
        UserError: the package is not installed.
    """
    made = _LOSSES[name](package_part("losses"), margin, distance_of(unit))

    def loss(z: Tensor, y: Tensor, chosen: Triplets) -> Tensor:
        value: Tensor = made(z, y, tuple(chosen))
        return value

    return loss
