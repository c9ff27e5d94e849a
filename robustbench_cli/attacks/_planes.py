"""The nearest point of a hyperplane inside the box [0, 1], in three norms.

Croce & Hein (2020), https://arxiv.org/abs/1907.02044, section 3 and appendix.
"""

from collections.abc import Callable

import torch
from torch import Tensor

NEWTON = 12
"""Newton steps for the multiplier.  The function is concave and piecewise linear, so they climb to
the root from below and land on it exactly once the last breakpoint is behind; few are needed."""


def to_plane(t: Tensor, w: Tensor, b: Tensor, norm: str) -> Tensor:
    """The smallest change in ``norm`` that takes ``t`` to {z : <w, z> = b, 0 <= z <= 1}.

    Args:
        t: points (B, d) in [0, 1].
        w, b: one hyperplane each, (B, d) and (B).

    Returns:
        The change (B, d); where the plane misses the box, the one to the nearest corner.
    """
    gap = (w * t).sum(1) - b
    w = torch.where(gap[:, None] < 0, -w, w)  # now the way leads down along w
    w = torch.where(w.abs() < 1e-8, 0, w)
    room = torch.where(w > 0, t, torch.where(w < 0, 1 - t, 0))
    slope, gap = w.abs(), gap.abs()
    moves = torch.where(
        ((slope * room).sum(1) < gap)[:, None], room, _ALONG[norm](slope, room, gap)
    )
    return -w.sign() * moves


def _linf(slope: Tensor, room: Tensor, gap: Tensor) -> Tensor:
    """Every coordinate by the same amount, as far as its room allows."""
    much = torch.zeros_like(gap)
    for _ in range(NEWTON):
        short = gap - (slope * torch.minimum(much[:, None], room)).sum(1)
        if _there(short, gap):
            break
        rate = torch.where(room > much[:, None], slope, 0).sum(1)
        much = much + short.clamp_min(0) / rate.clamp_min(1e-12)
    return torch.minimum(much[:, None], room)


def _l2(slope: Tensor, room: Tensor, gap: Tensor) -> Tensor:
    """Each coordinate in proportion to its slope, as far as its room allows."""
    much = torch.zeros_like(gap)
    for _ in range(NEWTON):
        want = much[:, None] * slope
        short = gap - (slope * torch.minimum(want, room)).sum(1)
        if _there(short, gap):
            break
        rate = torch.where(room > want, slope * slope, 0).sum(1)
        much = much + short.clamp_min(0) / rate.clamp_min(1e-12)
    return torch.minimum(much[:, None] * slope, room)


def _there(short: Tensor, gap: Tensor) -> bool:
    """Whether all have arrived; only asked where asking does not make a GPU wait."""
    return short.device.type == "cpu" and not bool((short > 1e-6 * gap).any())


def _l1(slope: Tensor, room: Tensor, gap: Tensor) -> Tensor:
    """The steepest coordinates first, each to the end of its room, the last one in part."""
    order = slope.argsort(dim=1, descending=True, stable=True)
    steep = slope.gather(1, order)
    gain = steep * room.gather(1, order)
    before = gain.cumsum(1) - gain
    part = ((gap[:, None] - before) / steep.clamp_min(1e-12)).clamp_min(0)
    moves = torch.minimum(part, room.gather(1, order))
    return torch.zeros_like(room).scatter(1, order, moves)


_ALONG: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "Linf": _linf,
    "L2": _l2,
    "L1": _l1,
}
