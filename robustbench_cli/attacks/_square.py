"""How Square Attack begins, and what one of its queries changes, in three norms.

Andriushchenko et al. (2020), https://arxiv.org/abs/1912.00049; L1 by Croce & Hein (2021),
https://arxiv.org/abs/2103.01208.
"""

import torch
from torch import Tensor

from robustbench_cli.attacks._windows import bumps, placed
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.threat import Threat, over

ODD = {"L2": 2, "L1": 4}
"""The norms whose windows have a middle, and the power with which their bumps fall off."""


def striped(x: Tensor, threat: Threat, noise: Noise) -> Tensor:
    """Vertical stripes of plus or minus eps."""
    return threat.project(x + threat.eps * _signs(noise.uniform(x[:, :, :1])), x)


def tiled(x: Tensor, threat: Threat, noise: Noise) -> Tensor:
    """Five by five bumps, each with a sign per channel and a turn of its own."""
    height, width = x.shape[2:]
    side = height // 5
    edge = (height - 5 * side) // 2
    row = torch.arange(height, device=x.device) - edge
    column = torch.arange(width, device=x.device) - edge
    tile_row, tile_column = (
        row.div(side, rounding_mode="floor"),
        column.div(side, rounding_mode="floor"),
    )
    covered = ((tile_row >= 0) & (tile_row < height // side))[:, None]
    covered = covered & ((tile_column >= 0) & (tile_column < width // side))
    draw = noise.uniform(x.new_empty(len(x), 1 + x.shape[1], height // side, width // side))
    place = (
        tile_row.clamp(0, height // side - 1)[:, None],
        tile_column.clamp(0, width // side - 1),
    )
    each = draw[:, :, place[0], place[1]]  # (B, 1 + C, H, W): every pixel sees its tile's draws
    table = bumps(side, ODD[threat.norm], x.device).to(x)
    picture = table[:, (row % side)[:, None], column % side]
    turned = torch.where(each[:, :1] < 0.5, picture[2 * side], picture[2 * side + 1])
    return _onto(x, torch.where(covered, turned * _signs(each[:, 1:]), 0), threat)


def flipped(best: Tensor, x: Tensor, side: Tensor, threat: Threat, noise: Noise) -> Tensor:
    """A square of plus or minus eps, one sign per channel."""
    draw = noise.uniform(x.new_empty(len(x), 2 + x.shape[1]))
    window = placed(draw, side, (x.shape[2], x.shape[3]))
    push = 2 * threat.eps * _signs(draw[:, 2:])[:, :, None, None]
    mask = window.mask(x.shape[2], x.shape[3])
    return threat.project(best + torch.where(mask, push, 0), x)


def redrawn(best: Tensor, x: Tensor, side: Tensor, threat: Threat, noise: Noise) -> Tensor:
    """The change in one window moves into a bump in another."""
    channels, shape = x.shape[1], (x.shape[2], x.shape[3])
    draw = noise.uniform(x.new_empty(len(x), 5 + channels))
    here, there = placed(draw, side, shape), placed(draw[:, 2:4], side, shape)
    into, out = here.mask(*shape), there.mask(*shape)
    delta = best - x
    spent = _size(delta.flatten(1), threat)[..., None, None]
    moved = _size((delta * (into | out)).flatten(2), threat)[..., None]
    table = bumps(min(shape), ODD[threat.norm], x.device).to(x)
    bump = here.painted(table, 2 * side + (draw[:, 4] < 0.5).long(), shape)
    old = delta * into
    new = bump * _signs(draw[:, 5:])[:, :, None, None]
    new = new + old / (1e-12 + _size(old.flatten(2), threat)[..., None])
    if threat.norm == "L2":
        left = ((threat.eps**2 - spent**2).clamp_min(0) / channels + moved**2).sqrt()
    else:
        left = ((threat.eps - spent).clamp_min(0) / channels + moved) * channels
    new = new / (1e-12 + _size(new.flatten(2), threat)[..., None]) * left
    return _onto(x, torch.where(into, new, torch.where(out, 0, delta)), threat)


def _signs(draw: Tensor) -> Tensor:
    return torch.where(draw < 0.5, -1.0, 1.0).to(draw)


def _size(flat: Tensor, threat: Threat) -> Tensor:
    """The norm over the last axis, which is kept."""
    order = {"L2": 2.0, "L1": 1.0}[threat.norm]
    norms: Tensor = torch.linalg.vector_norm(flat, ord=order, dim=-1, keepdim=True)
    return norms


def _onto(x: Tensor, delta: Tensor, threat: Threat) -> Tensor:
    """As far as the radius allows: under L2 always all the way."""
    if threat.norm == "L2":
        unit = delta / (over(delta.flatten(1).norm(dim=1), x) + 1e-12)
        return (x + threat.eps * unit).clamp(0, 1)
    return threat.project(x + delta, x)
