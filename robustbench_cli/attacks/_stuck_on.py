"""Patches stuck on images, at a place, in a size, and turned."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from robustbench_cli.core.example_rng import Noise


def drawn_poses(x: Tensor, side: int, rotation: float, scale: float, noise: Noise) -> Tensor:
    """Return a random pose for each image (B, C, H, W).

    Args:
        side: of the square that holds the patch, in pixels.
        rotation: the largest one in degrees, either way.
        scale: the least size, as a part of the side.
        noise: keyed by image (B).

    Returns:
        (B, 4): the square's top row and left column, the rotation in radians, the size.
    """
    top, left, turn, size = noise.uniform(x.flatten(1)[:, :1].expand(-1, 4).contiguous()).unbind(1)
    rows, columns = (length - side + 1 for length in x.shape[2:])
    angle = (2 * turn - 1) * math.radians(rotation)
    at = (top * rows).floor().clamp(max=rows - 1), (left * columns).floor().clamp(max=columns - 1)
    return torch.stack([*at, angle, scale + (1 - scale) * size], 1)


def stuck_on(x: Tensor, patch: Tensor, poses: Tensor, *, round_: bool) -> Tensor:
    """Return images (B, C, H, W) with the patch (C, S, S) on each, with a gradient for it.

    What a rotation moves out of the patch's S x S square is cut off, so that nothing outside of a
    square changes.

    Args:
        poses: of the patch on each image (B, 4), see ``drawn_poses``.
        round_: whether only the largest circle of the patch is there.
    """
    side, (height, width) = patch.shape[-1], x.shape[2:]
    top, left, angle, size = (each[:, None, None] for each in poses.unbind(1))
    # From -1 to 1 within the square, for the centres of its pixels.
    down = (torch.arange(height, device=x.device)[:, None] - top + 0.5) * 2 / side - 1
    right = (torch.arange(width, device=x.device) - left + 0.5) * 2 / side - 1
    inside = (down.abs() < 1) & (right.abs() < 1)
    # Where in the patch each pixel comes from.
    across = (angle.cos() * right + angle.sin() * down) / size
    along = (angle.cos() * down - angle.sin() * right) / size
    extent = across**2 + along**2 if round_ else torch.maximum(across.abs(), along.abs())
    shown = (inside & (extent <= 1))[:, None]
    grid = torch.stack([across, along], 3).to(patch)
    copies = patch.expand(len(x), *patch.shape)
    drawn = F.grid_sample(copies, grid, padding_mode="border", align_corners=False)
    return torch.where(shown, drawn.clamp(0, 1).to(x), x)
