"""Projection onto the intersection of a hyperplane and the box [0, 1]^d in Linf, L2 and L1.

Croce & Hein (2020), https://arxiv.org/abs/1907.02044, section 3 and appendix.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import threshold

from robustbench_cli.core.free_looks import surely_none

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
    # Signs and clamps where masks would do: on a CPU they take a tenth of the time.
    gap = (w * t).sum(1) - b
    slope = threshold(w.abs(), 1e-8, 0.0)
    # The way in which <w, z> decreases to b from above, or increases from below.
    way = w.sign() * slope.sign() * torch.where(gap < 0, 1.0, -1.0)[:, None]
    gap = gap.abs()
    room = (t - way.clamp_min(0)).abs_()  # t, or 1 - t on the way up
    moves = _MOVES[norm](slope, room, gap)
    out_of_reach = (slope * room).sum(1) < gap
    if not surely_none(out_of_reach):
        moves = torch.where(out_of_reach[:, None], room, moves)
    return way * moves


def _linf(slope: Tensor, room: Tensor, gap: Tensor) -> Tensor:
    """Return moves (B, d) of equal size in all coordinates, each limited to its ``room``.

    Args:
        slope: |w| (B, d), by which <w, z> falls per unit of a move.
        room: distances (B, d) to the face of the box in the direction of the move.
        gap: the amounts (B) by which <w, z> must fall.
    """
    size, enough = _first_size(slope, room, gap), 1e-6 * gap
    for _ in range(_NEWTON_STEPS - 1):
        moves = torch.minimum(size[:, None], room)
        missing = gap - (slope * moves).sum(1)
        if surely_none(missing > enough):
            return moves
        rate = (slope * _positive(room - size[:, None])).sum(1)
        size = size + missing.clamp_min(0) / rate.clamp_min(1e-12)
    return torch.minimum(size[:, None], room)


def _l2(slope: Tensor, room: Tensor, gap: Tensor) -> Tensor:
    """Return moves (B, d) proportional to ``slope``, each limited to its ``room``."""
    square = slope * slope
    size, enough = _first_size(square, room, gap), 1e-6 * gap
    for _ in range(_NEWTON_STEPS - 1):
        unlimited = size[:, None] * slope
        moves = torch.minimum(unlimited, room)
        missing = gap - (slope * moves).sum(1)
        if surely_none(missing > enough):
            return moves
        rate = (square * _positive(room - unlimited)).sum(1)
        size = size + missing.clamp_min(0) / rate.clamp_min(1e-12)
    return torch.minimum(size[:, None] * slope, room)


def _first_size(rates: Tensor, room: Tensor, gap: Tensor) -> Tensor:
    """Return the multiplier (B) after the first Newton step, which starts from no move at all.

    Args:
        rates: by how much <w, z> falls per unit of the multiplier in each coordinate (B, d).
    """
    return gap / (rates * room.sign()).sum(1).clamp_min(1e-12)


def _positive(values: Tensor) -> Tensor:
    """Return 1 where a value is positive, else 0, in a new tensor of their type."""
    return values.sign().clamp_min_(0)


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
