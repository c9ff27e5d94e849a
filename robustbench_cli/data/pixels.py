"""Pixels as they are given, checked: bytes where they are whole levels, floats elsewhere."""

import torch
from torch import Tensor

from robustbench_cli.core.errors import UserError

_PART = 256
"""Images that are checked at once, so that no second copy of a large set is needed."""


def exact_pixels(x: Tensor) -> Tensor:
    """Return images (N, C, H, W) as uint8 where that loses nothing, else as float32 in [0, 1].

    Args:
        x: uint8, 0 to 255, or floats in [0, 1].

    Raises:
        UserError: another type or range, or NaN pixels.
    """
    if x.dtype == torch.uint8:
        return x.contiguous()
    if not x.is_floating_point():
        raise UserError(f"images must be uint8 or float in [0, 1], got {x.dtype}")
    parts = torch.split(x, _PART)
    for part in parts:
        _check_range(part)
    found = []
    for part in parts:
        levels = (part.float() * 255).round().to(torch.uint8)
        if not torch.equal(levels.float() / 255, part.float()):
            return x.float().clone(memory_format=torch.contiguous_format)
        found.append(levels.contiguous())
    return torch.cat(found)


def _check_range(x: Tensor) -> None:
    """Raise ``UserError`` unless all pixels are in [0, 1]."""
    if not x.numel():
        return
    if not bool(x.isfinite().all()):
        raise UserError("images have NaN or infinite pixels")
    low, high = float(x.min()), float(x.max())
    if low < 0:
        mend = "a model that wants normalised images must do that itself, as its first layer"
    else:
        mend = "divide by 255, or give uint8"
    if low < 0 or high > 1:
        raise UserError(f"images must be in [0, 1], got {low:.3g} to {high:.3g}; {mend}")
