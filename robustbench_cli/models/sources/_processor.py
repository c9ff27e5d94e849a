"""What an image processor of transformers does to images, as layers of the model.

Transformers (Wolf et al., 2019), https://arxiv.org/abs/1910.03771.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from robustbench_cli.core.errors import in_one_line
from robustbench_cli.models import Normalize
from robustbench_cli.models.normalizations import ChannelStatistics
from robustbench_cli.models.reshaping import Resample, Reshaping

_RESAMPLES: Mapping[int, Resample] = {0: "nearest", 2: "bilinear", 3: "bicubic"}
"""How Pillow numbers the ways to resize."""
_ALIKE = 3
"""Levels of 256 by which a pixel may differ: processors round to bytes in between.  Noise that is
resized or cut in another way differs by ten times as much."""
_NOISE = (96, 160)
"""Range of the levels of the noise that is tried: so little contrast that bicubic interpolation
does not leave 0 to 255, where it is cut off after each direction or after both."""
_TRIED = (61, 83)
"""Height and width of the image that is tried: odd, and neither square nor that of a model."""


def normalization_of(processor: Any) -> ChannelStatistics | None:
    """Return what is subtracted and divided by, for images in [0, 1]; None: nothing."""
    scale = 255.0
    if getattr(processor, "do_rescale", False):
        scale = 255 * float(processor.rescale_factor)
    if getattr(processor, "do_normalize", False):
        mean, std = (_listed(getattr(processor, f"image_{name}")) for name in ("mean", "std"))
    elif scale == 1.0:
        return None
    else:
        mean, std = (0.0,), (1.0,)
    # (scale * x - mean) / std
    return ChannelStatistics(tuple(m / scale for m in mean), tuple(s / scale for s in std))


def _listed(value: Any) -> tuple[float, ...]:
    return tuple(value) if isinstance(value, list | tuple) else (float(value),)


def reshaping_of(
    processor: Any, normalization: ChannelStatistics | None, channels: int
) -> tuple[Reshaping, tuple[str, ...]]:
    """Return how a processor resizes and cuts images, and notes.

    Processors of different models take the same settings in different ways.  So the ways that are
    known are compared with what the processor makes of an image of noise, and the first one that
    gives the same is taken.

    Args:
        normalization: as ``normalization_of`` returns it.
        channels: of the model's images.
    """
    seed = torch.Generator().manual_seed(0)
    levels = torch.randint(*_NOISE, (channels, *_TRIED), generator=seed, dtype=torch.uint8)
    known = list(dict.fromkeys(_ways(processor)))
    try:
        own = processor(images=levels, return_tensors="pt", input_data_format="channels_first")
        expected = torch.as_tensor(own["pixel_values"]).float()
    except Exception as error:  # of a processor that wants something else
        said = in_one_line(error)
    else:
        for way in known:
            if _same(way, normalization, levels, expected):
                return way, ()
        said = "its own result on an image of noise is another one"
    return known[0], (
        f"the image processor does more than the resizing, cutting and normalising that could be "
        f"taken over ({said}): compare clean accuracy with the published one, or set --resize and "
        f"--normalize",
    )


def _same(
    way: Reshaping, normalization: ChannelStatistics | None, levels: Tensor, expected: Tensor
) -> bool:
    """Return True if this makes of an image what the processor made of it, up to rounding."""
    layers = way.for_images(levels.shape[1:]).layers()
    layers += [Normalize(*normalization)] if normalization else []
    found = nn.Sequential(*layers)(levels[None].float() / 255)
    if found.shape != expected.shape:
        return False
    std = torch.tensor(normalization.std if normalization else (1.0,)).view(-1, 1, 1)
    return bool(((found - expected) * std).abs().max() <= _ALIKE / 255)


def _ways(processor: Any) -> Iterator[Reshaping]:
    """Yield the ways to take a processor's settings, the plain one first."""
    resample = getattr(processor, "resample", None)
    how = _RESAMPLES.get(2 if resample is None else int(resample), "bilinear")
    size = _sides(processor, "size") if getattr(processor, "do_resize", False) else {}
    cut = _sides(processor, "crop_size") if getattr(processor, "do_center_crop", False) else {}
    crop = _square(cut, cut.get("shortest_edge"))
    plain = Reshaping(size=_square(size), crop=crop, resample=how)
    side = size.get("shortest_edge")
    if not side:
        yield plain
        return
    scaled = replace(plain, size=None, shorter_side=side)
    yield scaled
    # As ImageNet is commonly evaluated: 224 of 256 pixels, or another share, are kept.
    for kept in (getattr(processor, "crop_pct", None), 224 / 256):
        if kept:
            for larger in (int(side / kept), int(1 / kept * side)):  # these differ by rounding
                yield replace(scaled, shorter_side=larger, crop=crop or (side, side))
    yield replace(plain, size=(side, side))


def _sides(processor: Any, name: str) -> dict[str, int]:
    """Return the sides of a size in pixels, by the names that transformers gives them."""
    given = dict(getattr(processor, name, None) or {})
    return {str(each): int(value) for each, value in given.items() if value}


def _square(sides: Mapping[str, int], otherwise: int | None = None) -> tuple[int, int] | None:
    height, width = sides.get("height", otherwise), sides.get("width", otherwise)
    return (height, width) if height and width else None
