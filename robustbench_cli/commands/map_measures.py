"""How well a map of importances points at the object: energy, pointing game, weak localisation.

All take maps (B, H, W), none below 0, and return a number per image; NaN where it means nothing.
"""

import numpy as np
import torch
from torch import Tensor

from robustbench_cli.commands.object_places import PixelBox

_CAM_LEVEL = 0.2
"""Share of the largest importance above which a pixel counts as the object (Zhou et al., 2016)."""
LOCALISED = 0.5
"""The overlap from which on an object counts as found."""


def energy_in_mask(maps: Tensor, masks: Tensor) -> Tensor:
    """Return the share of all importance that lies on the object (B), in [0, 1].

    As in Wang et al. (2020), https://arxiv.org/abs/1910.01279, with a mask in place of the box.  An
    even map scores the object's share of the pixels.  NaN where the map is empty, or the mask has
    all pixels or none.
    """
    total = maps.flatten(1).sum(1)
    inside = (maps * masks).flatten(1).sum(1)
    return torch.where(_tells(masks) & (total > 0), inside / total, torch.nan)


def pointing_game(maps: Tensor, masks: Tensor) -> Tensor:
    """Return whether the most important pixel lies on the object (B), 0 or 1.

    Zhang et al. (2018), https://arxiv.org/abs/1608.00507, without their margin of 15 pixels.  Of
    equal maxima the share that lies on it.  NaN as for the energy.
    """
    flat, chosen = maps.flatten(1), masks.flatten(1)
    largest = flat == flat.amax(1, keepdim=True)
    share = (largest & chosen).sum(1) / largest.sum(1)
    return torch.where(_tells(masks) & (flat.amax(1) > 0), share, torch.nan)


def _tells(masks: Tensor) -> Tensor:
    return masks.flatten(1).any(1) & ~masks.flatten(1).all(1)


def box_overlap(one: np.ndarray, boxes: list[PixelBox]) -> float:
    """Return the overlap of a map's own box with the nearest of some boxes, in [0, 1].

    The map's box holds the largest connected part of the pixels above a fifth of its maximum (Zhou
    et al., 2016), https://arxiv.org/abs/1512.04150; the overlap is intersection over union.

    Args:
        one: a map (H, W), none below 0.
        boxes: at least one.

    Returns:
        NaN where the map is empty.
    """
    from scipy.ndimage import find_objects, label  # type: ignore[import-untyped]

    if not one.max() > 0:
        return float("nan")
    parts, _ = label(one > _CAM_LEVEL * one.max())
    largest = int(np.bincount(parts.ravel())[1:].argmax())
    rows, columns = find_objects(parts)[largest]
    own = (columns.start, rows.start, columns.stop, rows.stop)
    return max(_intersection_over_union(own, box) for box in boxes)


def _intersection_over_union(one: PixelBox, other: PixelBox) -> float:
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    common = max(across, 0) * max(down, 0)
    return common / (_area(one) + _area(other) - common)


def _area(box: PixelBox) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
