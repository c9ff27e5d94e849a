"""Projection onto the intersection of a hyperplane and the box [0, 1]^d in Linf, L2 and L1.

Croce & Hein (2020), https://arxiv.org/abs/1907.02044, section 3 and appendix.
"""

from collections.abc import Callable

import torch
from torch import Tensor

_NEWTON_STEPS = 12
"""Newton steps for the multiplier.  The function is concave and piecewise linear, so they approach
the root from below and reach it exactly once they have passed the last breakpoint; few are
needed."""


def to_plane(t: Tensor, w: Tensor, b: Tensor, norm: str) -> Tensor:
    """Return the smallest change in ``norm`` that takes ``t`` to {z : <w, z> = b, 0 <= z <= 1}.

    Args:
        t: points (B, d) in [0, 1].
        w, b: one hyperplane for each point, (B, d) and (B).

    Returns:
        The change (B, d); where the plane misses the box, the change to the corner of the box
        that is nearest to the plane.
    """
    gap = (w * t).sum(1) - b
    w = torch.where(gap[:, None] < 0, -w, w)  # with this sign <w, t> must decrease to b
    w = torch.where(w.abs() < 1e-8, 0, w)
    room = torch.where(w > 0, t, torch.where(w < 0, 1 - t, 0))
    slope, gap = w.abs(), gap.abs()
    moves = torch.where(
        ((slope * room).sum(1) < gap)[:, None], room, _MOVES[norm](slope, room, gap)
    )
    return -w.sign() * moves


def _linf(slope: Tensor, room: Tensor, gap: Tensor) -> Tensor:
    """Return moves (B, d) of equal size in all coordinates, each limited to its ``room``.

    Args:
        slope: |w| (B, d), by which <w, z> falls per unit of a move.
        room: distances (B, d) to the face of the box in the direction of the move.
        gap: the amounts (B) by which <w, z> must fall.
    """
    size = torch.zeros_like(gap)
    for _ in range(_NEWTON_STEPS):
        missing = gap - (slope * torch.minimum(size[:, None], room)).sum(1)
        if _converged(missing, gap):
            break
        rate = torch.where(room > size[:, None], slope, 0).sum(1)
        size = size + missing.clamp_min(0) / rate.clamp_min(1e-12)
    return torch.minimum(size[:, None], room)


def _l2(slope: Tensor, room: Tensor, gap: Tensor) -> Tensor:
    """Return moves (B, d) proportional to ``slope``, each limited to its ``room``."""
    size = torch.zeros_like(gap)
    for _ in range(_NEWTON_STEPS):
        unlimited = size[:, None] * slope
        missing = gap - (slope * torch.minimum(unlimited, room)).sum(1)
        if _converged(missing, gap):
            break
        rate = torch.where(room > unlimited, slope * slope, 0).sum(1)
        size = size + missing.clamp_min(0) / rate.clamp_min(1e-12)
    return torch.minimum(size[:, None] * slope, room)


def _converged(missing: Tensor, gap: Tensor) -> bool:
    """Return True if every row is done; on a GPU always False, to avoid a synchronisation."""
    return missing.device.type == "cpu" and not bool((missing > 1e-6 * gap).any())


def _l1(slope: Tensor, room: Tensor, gap: Tensor) -> Tensor:
    """Return moves (B, d) that use up the ``room`` of the steepest coordinates one by one."""
    order = slope.argsort(dim=1, descending=True, stable=True)
    steepest = slope.gather(1, order)
    gain = steepest * room.gather(1, order)
    before = gain.cumsum(1) - gain
    part = ((gap[:, None] - before) / steepest.clamp_min(1e-12)).clamp_min(0)
    moves = torch.minimum(part, room.gather(1, order))
    return torch.zeros_like(room).scatter(1, order, moves)


_MOVES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "Linf": _linf,
    "L2": _l2,
    "L1": _l1,
}
