"""Whole pixels and square windows of them, for geometries that count or place what changes."""

import torch
from torch import Tensor
from torch.nn import functional as F

from robustbench_cli.core.errors import UserError


def check_whole(eps: float, unit: str) -> None:
    """Refuse a size that is no whole number of at least one.

    Args:
        unit: what is counted, e.g. "pixels that change".

    Raises:
        UserError: with what was given.
    """
    if not (eps >= 1 and float(eps).is_integer()):
        raise UserError(f"eps must be a whole number of {unit}, 1 or more, got {eps:g}")


def changed(x_adv: Tensor, x: Tensor) -> Tensor:
    """Return the pixels of which any channel differs, bool (B, H, W); NaN differs."""
    return (x_adv != x).any(1)


def energy(x_adv: Tensor, x: Tensor) -> Tensor:
    """Return the squared change of each pixel, summed over its channels (B, H, W)."""
    return (x_adv - x).square().sum(1)


def extremes(x: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    """Return the image (B, C, H, W) in the box where a linear function is largest, and the gains.

    Entries at which the slope is zero stay as they are.

    Returns:
        The image, and by how much each of its pixels raises the function (B, H, W).
    """
    best = torch.where(slope > 0, 1.0, torch.where(slope < 0, 0.0, x)).to(x)
    return best, (slope * (best - x)).sum(1)


def largest_pixels(score: Tensor, count: int) -> Tensor:
    """Return the ``count`` pixels with the largest score, bool (B, 1, H, W); the first of equals.

    Args:
        score: of each pixel (B, H, W).
    """
    flat = score.flatten(1)
    order = flat.argsort(dim=1, descending=True, stable=True)[:, :count]
    chosen = torch.zeros_like(flat, dtype=torch.bool).scatter(1, order, True)
    return chosen.view_as(score)[:, None]


def window_sums(score: Tensor, side: int) -> Tensor:
    """Return the sum of a score (B, H, W) over every square window (B, H - side + 1, W - side + 1).

    A window is named by its upper left pixel.
    """
    return F.avg_pool2d(score[:, None], side, stride=1)[:, 0] * side**2


def window(place: Tensor, side: int, shape: tuple[int, int]) -> Tensor:
    """Return a square window of each image, bool (B, 1, H, W).

    Args:
        place: the number of the window (B), counted row by row in ``window_sums``.
        shape: height and width of the images.
    """
    height, width = shape
    across = width - side + 1
    top, left = place.div(across, rounding_mode="floor"), place % across
    rows = torch.arange(height, device=place.device) - top[:, None]
    columns = torch.arange(width, device=place.device) - left[:, None]
    inside = ((rows >= 0) & (rows < side))[:, :, None] & ((columns >= 0) & (columns < side))[
        :, None
    ]
    return inside[:, None]
