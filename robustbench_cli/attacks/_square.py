"""Starting points and proposals of Square Attack in Linf, L2 and L1.

Andriushchenko et al. (2020), https://arxiv.org/abs/1912.00049; L1 by Croce & Hein (2021),
https://arxiv.org/abs/2103.01208.
"""

import torch
from torch import Tensor

from robustbench_cli.attacks._task import State
from robustbench_cli.attacks._windows import bumps, placed
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.threat import Threat, over

BUMP_POWERS = {"L2": 2, "L1": 4}
"""The exponent with which bumps fall off from their middle.  In these norms windows have an odd
side, so that they have a middle pixel."""


def striped(x: Tensor, threat: Threat, noise: Noise) -> Tensor:
    """Return ``x`` (B, C, H, W) with vertical stripes of +-eps (Linf), projected."""
    return threat.project(x + threat.eps * _signs(noise.uniform(x[:, :, :1])), x)


def tiled(x: Tensor, threat: Threat, noise: Noise) -> Tensor:
    """Return ``x`` (B, C, H, W) with a grid of 5 x 5 bumps (L2, L1), projected.

    Each bump has a random orientation and a random sign per channel.
    """
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
    each = draw[:, :, place[0], place[1]]  # (B, 1 + C, H, W): the draws of each pixel's tile
    table = bumps(side, BUMP_POWERS[threat.norm], x.device).to(x)
    bump = table[:, (row % side)[:, None], column % side]
    oriented = torch.where(each[:, :1] < 0.5, bump[2 * side], bump[2 * side + 1])
    return _rescaled(x, torch.where(covered, oriented * _signs(each[:, 1:]), 0), threat)


class Flips:
    """Squares of +-eps with a sign per channel (Linf)."""

    @staticmethod
    def drawn(x: Tensor, sides: Tensor, threat: Threat, noise: Noise) -> State:
        """Draw the squares of the next D queries: their rows, columns and signs (B, D, ...).

        Args:
            x: clean images (B, C, H, W).
            sides: the squares' sides in pixels (B, D).
            noise: keyed by example and by the number of the first of the queries.
        """
        draw = noise.uniform_ahead(x.new_empty(len(x), 2 + x.shape[1]), sides.shape[1])
        height, width = x.shape[2:]
        rows, columns = placed(draw, sides, (height, width)).bands(height, width)
        push = 2 * threat.eps * _signs(draw[..., 2:])[..., None, None]
        return {"rows": rows, "columns": columns, "push": push}

    @staticmethod
    def proposed(best: Tensor, x: Tensor, squares: State, threat: Threat) -> Tensor:
        """Return the images (B, C, H, W) to ask about next.

        Args:
            best: the best images so far (B, C, H, W).
            x: clean images (B, C, H, W) in [0, 1].
            squares: those of one query, as ``drawn`` gives them for several.
        """
        mask = squares["rows"] & squares["columns"]
        return threat.project(torch.where(mask, squares["push"], 0).add_(best), x)


class Moves:
    """The perturbation of one window is moved into a bump in another one (L2, L1)."""

    @staticmethod
    def drawn(x: Tensor, sides: Tensor, _threat: Threat, noise: Noise) -> State:
        """Draw the windows of the next D queries; see ``Flips``."""
        draw = noise.uniform_ahead(x.new_empty(len(x), 5 + x.shape[1]), sides.shape[1])
        return {"draw": draw, "side": sides}

    @staticmethod
    def proposed(best: Tensor, x: Tensor, squares: State, threat: Threat) -> Tensor:
        """Return the images (B, C, H, W) to ask about next; see ``Flips``."""
        return _moved(best, x, squares["side"], threat, squares["draw"])


def _moved(best: Tensor, x: Tensor, side: Tensor, threat: Threat, draw: Tensor) -> Tensor:
    channels, shape = x.shape[1], (x.shape[2], x.shape[3])
    here, there = placed(draw, side, shape), placed(draw[:, 2:4], side, shape)
    into, out = here.mask(*shape), there.mask(*shape)
    delta = best - x
    spent = _norm(delta.flatten(1), threat)[..., None, None]
    moved = _norm((delta * (into | out)).flatten(2), threat)[..., None]
    table = bumps(min(shape), BUMP_POWERS[threat.norm], x.device).to(x)
    bump = here.painted(table, 2 * side + (draw[:, 4] < 0.5).long(), shape)
    old = delta * into
    new = bump * _signs(draw[:, 5:])[:, :, None, None]
    new = new + old / (1e-12 + _norm(old.flatten(2), threat)[..., None])
    # The budget of the new bump: what both windows had, and what is left of eps.
    if threat.norm == "L2":
        budget = ((threat.eps**2 - spent**2).clamp_min(0) / channels + moved**2).sqrt()
    else:
        budget = ((threat.eps - spent).clamp_min(0) / channels + moved) * channels
    new = new / (1e-12 + _norm(new.flatten(2), threat)[..., None]) * budget
    return _rescaled(x, torch.where(into, new, torch.where(out, 0, delta)), threat)


def _signs(draw: Tensor) -> Tensor:
    """Turn uniform draws in [0, 1) into -1 and 1."""
    return draw.new_ones(()).copysign(draw - 0.5)


def _norm(flat: Tensor, threat: Threat) -> Tensor:
    """Return the norm over the last axis, which is kept with length 1."""
    order = {"L2": 2.0, "L1": 1.0}[threat.norm]
    norms: Tensor = torch.linalg.vector_norm(flat, ord=order, dim=-1, keepdim=True)
    return norms


def _rescaled(x: Tensor, delta: Tensor, threat: Threat) -> Tensor:
    """Return ``x`` + ``delta``, scaled to length eps and clipped under L2, else projected."""
    if threat.norm == "L2":
        unit = delta / (over(delta.flatten(1).norm(dim=1), x) + 1e-12)
        return (x + threat.eps * unit).clamp(0, 1)
    return threat.project(x + delta, x)
