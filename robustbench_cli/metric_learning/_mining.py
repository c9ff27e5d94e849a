"""Triplet miners, from pytorch-metric-learning, with one triplet per anchor and keyed draws."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from robustbench_cli.metric_learning._losses import distance_of
from robustbench_cli.metric_learning._package import keyed_torch, package_part
from robustbench_cli.metric_learning._step import Triplets

MinerName = Literal["distance", "random", "semihard", "hard"]

_CUTOFF, _NONZERO = 0.5, 1.4
"""Of distance-weighted mining: distances below count as this one, negatives farther are not drawn
(Wu et al., 2017, https://arxiv.org/abs/1706.07567)."""


@dataclass(frozen=True)
class _Embedded:
    """A batch on the CPU: embeddings (B, D), labels (B), margin, and whether norms are made 1."""

    z: Tensor
    y: Tensor
    margin: float
    unit: bool


def _random(batch: _Embedded) -> Any:
    """Return a random positive and negative for every anchor."""
    indices = package_part("utils.loss_and_miner_utils").get_random_triplet_indices
    return indices(batch.y, t_per_anchor=1)


def _by_distance(batch: _Embedded) -> Any:
    """Return triplets whose negatives are drawn evenly over distances on the sphere."""
    # Weights of the sphere make no sense of other embeddings, so these are scaled for the choice.
    miner = package_part("miners").DistanceWeightedMiner(
        cutoff=_CUTOFF, nonzero_loss_cutoff=_NONZERO, distance=distance_of(True)
    )
    return miner(batch.z, batch.y)


def _violating(kind: str, batch: _Embedded) -> Any:
    """Return all triplets that violate the margin in one way."""
    miner = package_part("miners").TripletMarginMiner(
        margin=batch.margin, type_of_triplets=kind, distance=distance_of(batch.unit)
    )
    return miner(batch.z, batch.y)


_MINERS: Mapping[str, Callable[[_Embedded], Any]] = {
    "distance": _by_distance,
    "random": _random,
    "semihard": partial(_violating, "semihard"),
    "hard": partial(_violating, "hard"),
}


def mined(
    name: MinerName, z: Tensor, y: Tensor, *, margin: float, unit: bool, key: tuple[object, ...]
) -> Triplets:
    """Return one triplet for each anchor that has an image of its class and one of another.

    Anchors are in the order of the batch, so triplets of two miners belong together row by row.  An
    anchor for which the miner finds nothing gets a random triplet.

    Args:
        z: embeddings (B, D); no gradient passes.
        y: labels (B).
        margin: of the triplet loss; semihard triplets violate it, hard ones have the negative
            nearer than the positive.
        unit: whether distances are those of embeddings scaled to norm 1.
        key: what random choices follow from.
    """
    batch = _Embedded(z.detach().float().cpu(), y.cpu(), margin, unit)
    with keyed_torch("miner", name, *key):
        usual = _one_each(_random(batch), len(y))
        chosen = _one_each(_MINERS[name](batch), len(y))
    rows = torch.where(chosen[:, :1] >= 0, chosen, usual)
    rows = rows[rows[:, 0] >= 0].to(z.device)
    return Triplets(*rows.unbind(1))


def _one_each(found: tuple[Tensor, Tensor, Tensor], count: int) -> Tensor:
    """Return one of its triplets at random for each of ``count`` anchors (count, 3); -1: none."""
    rows = torch.stack(list(found), 1).long()
    rows = rows[torch.randperm(len(rows))]
    first = torch.full((count,), len(rows))
    first.scatter_reduce_(0, rows[:, 0], torch.arange(len(rows)), "amin")
    chosen, has = torch.full((count, 3), -1), first < len(rows)
    chosen[has] = rows[first[has]]
    return chosen
