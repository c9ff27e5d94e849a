"""The network that rebuilds images from confidences and explanation maps.

Zhao et al. (2021), https://arxiv.org/abs/2104.12669, name three ways to use a map: flattened beside
the confidences, through a U-Net's encoder with skip connections into the decoder, or both.  They
published no code; the layers follow a re-implementation in the code of GNIME (Jeong et al., 2022).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustbench_cli.core.example_rng import stream_generator

Fusion = Literal["flatten", "unet", "both"]
FUSIONS: tuple[Fusion, ...] = ("flatten", "unet", "both")
"""The ways to use a map: flattened beside the confidences, by a U-Net, or by both at once."""
_CODE, _DENSE, _FIRST = 64, 512, 4
"""The encoder's features, the features that the decoder begins with, and its first side."""


class PublishedAnswers(NamedTuple):
    """What is known of some images."""

    confidences: Tensor
    """(N, K), of which each row sums to 1."""
    maps: Tensor | None
    """Explanation maps (N, C, H, W), scaled; None: none are published."""

    def rows(self, rows: Tensor | slice) -> "PublishedAnswers":
        """Return what is known of these images: indices (B), a mask (N) or a slice."""
        return PublishedAnswers(
            self.confidences[rows], None if self.maps is None else self.maps[rows]
        )


def shuffled(known: PublishedAnswers, purpose: str, seed: int) -> PublishedAnswers:
    """Return the answers with each image's map given to another image.

    An attack on them learns nothing from maps: it must do no better than with confidences alone.
    """
    if known.maps is None:
        return known
    n = len(known.maps)
    order = torch.randperm(n, generator=stream_generator("shuffled maps", purpose, seed))
    source = torch.empty_like(order)
    source[order] = order.roll(1)  # one cycle through all images: none keeps its own
    return known._replace(maps=known.maps[source.to(known.maps.device)])


@dataclass(frozen=True, kw_only=True)
class InversionShape:
    """The sizes of an inversion network."""

    classes: int
    image: tuple[int, int, int]
    """(C, H, W) of the images."""
    map_channels: int
    """Channels of the maps; 0: there are none."""
    fusion: Fusion
    width: int
    """A convolution at side s has width/s channels."""

    @property
    def sides(self) -> tuple[int, ...]:
        """The sides of the grids, from the smallest power of two that holds an image down to 2."""
        largest = max(8, 1 << (max(self.image[1:]) - 1).bit_length())
        return tuple(largest >> k for k in range(largest.bit_length() - 1))

    def channels(self, side: int) -> int:
        """Return the channels of the convolutions at this side."""
        return max(1, self.width // side)


class InversionNet(nn.Module):
    """Confidences (B, K) and explanation maps (B, C, H, W) to images (B, C, H, W).

    Images are not kept in [0, 1] here: who measures or shows them clips them.
    """

    def __init__(self, shape: InversionShape) -> None:
        super().__init__()
        self.shape = shape
        self.flat = bool(shape.map_channels) and shape.fusion in ("flatten", "both")
        self.skips = bool(shape.map_channels) and shape.fusion in ("unet", "both")
        known = shape.classes
        if self.flat:
            known += shape.map_channels * shape.image[1] * shape.image[2]
        if self.skips:
            known += _CODE
            self.encoder = MapEncoder(shape)
        first = shape.channels(_FIRST)
        self.dense = nn.Sequential(
            nn.Linear(known, _DENSE), nn.ReLU(), nn.Linear(_DENSE, first * _FIRST**2), nn.ReLU()
        )
        rising = [side for side in reversed(shape.sides) if side >= _FIRST]
        self.steps = nn.ModuleList()
        for small, large in pairwise(rising):
            beside = shape.channels(large) if self.skips else 0
            given = shape.channels(small) + beside
            self.steps.append(nn.Conv2d(given, shape.channels(large), 3, padding=1))
        self.last = nn.Conv2d(shape.channels(rising[-1]), shape.image[0], 3, padding=1)

    def forward(self, known: PublishedAnswers) -> Tensor:
        """Return images (B, C, H, W), not clipped, from what is known of B images."""
        parts, skipped = [known.confidences], dict[int, Tensor]()
        if known.maps is not None and self.skips:
            code, skipped = self.encoder(known.maps)
            parts.append(code)
        if known.maps is not None and self.flat:
            parts.append(known.maps.flatten(1))
        grid = self.dense(torch.cat(parts, 1)).unflatten(1, (-1, _FIRST, _FIRST))
        for step in self.steps:
            grid = F.interpolate(grid, scale_factor=2)
            beside = [skipped[grid.shape[-1]]] if self.skips else []
            grid = F.relu(step(torch.cat([grid, *beside], 1)))
        image: Tensor = self.last(grid)
        return image[..., : self.shape.image[1], : self.shape.image[2]]


class MapEncoder(nn.Module):
    """An explanation map (B, C, H, W) to features (B, 64) and the grids that the decoder reads."""

    def __init__(self, shape: InversionShape) -> None:
        super().__init__()
        self.side = shape.sides[0]
        given = shape.map_channels
        self.steps = nn.ModuleList()
        for side in shape.sides[:-1]:
            self.steps.append(nn.Conv2d(given, shape.channels(side), 3, padding=1))
            given = shape.channels(side)
        self.code = nn.Linear(given * shape.sides[-1] ** 2, _CODE)

    def forward(self, maps: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
        """Return the features, and the grids (B, C, S, S) by their side S."""
        height, width = maps.shape[2:]
        grid = F.pad(maps, (0, self.side - width, 0, self.side - height))
        kept = {}
        for step in self.steps:
            grid = F.relu(step(grid))
            kept[grid.shape[-1]] = grid
            grid = F.max_pool2d(grid, 2)
        return F.relu(self.code(grid.flatten(1))), kept


class Inverter(nn.Module, ABC):
    """A network that is trained to return images from what is published of them."""

    @abstractmethod
    def loss(self, known: PublishedAnswers, x: Tensor) -> Tensor:
        """Return the scalar that training brings down.

        Args:
            x: the images (B, C, H, W) in [0, 1].
        """

    @abstractmethod
    def images(self, known: PublishedAnswers) -> Tensor:
        """Return images (B, C, H, W), clipped to [0, 1]."""
