"""Weights over K domains, on the probability simplex, and how they follow the domains' losses.

Wang et al., 2021, https://arxiv.org/abs/1906.03563: w maximises sum w_i F_i - gamma/2 |w - 1/K|^2.
"""

from typing import Annotated, Any, Literal, get_args

import torch
from pydantic import BeforeValidator
from torch import Tensor

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.losses import margin
from robustbench_cli.core.registry import Number


def _weights(value: Any) -> Any:
    if value in get_args(WeightSchedule):
        return value
    try:
        shares = tuple(map(float, value.split("/") if isinstance(value, str) else value))
    except (TypeError, ValueError):
        raise ValueError("expected min-max, avg, or shares of one as 0.5/0.3/0.2") from None
    if not shares or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
        raise ValueError(f"weights are shares of one, these sum to {sum(shares):g}")
    return shares


WeightSchedule = Literal["min-max", "avg"]
DomainWeights = Annotated[WeightSchedule | tuple[Number, ...], BeforeValidator(_weights)]
"""Weights that follow the worst domain, the same for all, or fixed ones: ``0.5/0.3/0.2``."""


def onto_simplex(v: Tensor) -> Tensor:
    """Return the nearest points (B, K) to ``v`` (B, K) with no negative entry and sum one.

    Duchi et al., 2008, https://doi.org/10.1145/1390156.1390191: the largest entries keep what
    remains after subtracting their common excess over one; the others are zero.
    """
    largest = v.sort(dim=1, descending=True).values
    rank = torch.arange(1, v.shape[1] + 1, device=v.device)
    excess = (largest.cumsum(1) - 1) / rank
    kept = (largest > excess).sum(1, keepdim=True)
    return (v - excess.gather(1, kept - 1)).clamp_min(0)


def uniform_weights(losses: Tensor) -> Tensor:
    """Return weights (B, K) of 1/K for losses (B, K)."""
    return torch.full_like(losses, 1 / losses.shape[1])


def first(weights: DomainWeights, like: Tensor) -> Tensor:
    """Return the weights that an attack begins with, shaped like ``like`` (B, K).

    Raises:
        UserError: there are not as many fixed weights as domains.
    """
    if isinstance(weights, str):
        return uniform_weights(like)
    if len(weights) != like.shape[1]:
        raise UserError(f"{len(weights)} weights are given for {like.shape[1]} domains")
    return like.new_tensor(weights).repeat(len(like), 1)


def towards_worst(weights: Tensor, losses: Tensor, gamma: float, pace: Tensor) -> Tensor:
    """Return the weights (B, K) after one projected ascent step of size ``pace`` (B, 1).

    The objective is sum w_i F_i - gamma/2 |w - 1/K|^2, for losses F (B, K).
    """
    pull = losses - gamma * (weights - uniform_weights(losses))
    return onto_simplex(weights + pace * pull)


def settled(losses: Tensor, gamma: float) -> Tensor:
    """Return the weights (B, K) that such steps converge to while the losses (B, K) stay.

    They are 1/K for gamma to infinity, and the largest loss alone for gamma to zero.
    """
    return onto_simplex(uniform_weights(losses) + losses / gamma)


def least_wrong(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the domain of each example with the smallest margin of a wrong class.

    All domains are misclassified if this one is.

    Args:
        logits: of K domains (B, K, C); those of a single one (B, C) are returned as they are.
        y: the label in each domain (B, K).

    Returns:
        Its logits (B, C) and its label (B).
    """
    if logits.ndim == 2:
        return logits, y
    gap = margin(logits.flatten(0, 1), y.flatten()).view_as(y)
    # A tie of two classes may be right or wrong: at the same margin, right comes first.
    right = logits.argmax(2) == y
    chosen = (gap - torch.finfo(gap.dtype).tiny * right).argmin(1)
    rows = torch.arange(len(y), device=y.device)
    return logits[rows, chosen], y[rows, chosen]
