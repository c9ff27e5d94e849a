"""Trapdoors: a faint pattern per class that a network is taught to take for that class.

Shan et al. (2020), https://arxiv.org/abs/1904.08554, section 4.1.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_cli.core.example_rng import stream_generator

MASKS, PATTERNS = "trapdoor_masks", "trapdoor_patterns"
"""The ends of the names under which the two tensors are kept beside a network's weights."""


@dataclass(frozen=True)
class Trapdoors:
    """The trapdoors of K classes."""

    masks: Tensor
    """The share of the pattern in each pixel (K, 1, H, W), in [0, 1]; 0 outside of it."""
    patterns: Tensor
    """The patterns (K, 1, H, W) in [0, 1], the same in all channels."""

    @classmethod
    def drawn(
        cls,
        seed: int,
        classes: int,
        height: int,
        width: int,
        *,
        clusters: int,
        size: int,
        mask: float,
    ) -> "Trapdoors":
        """Return random trapdoors; that of a class depends on the seed and the class alone.

        Each is a union of squares at random places.  The pixels of a square are drawn from N(m, s)
        with m and s uniform in [0, 1], and cut to [0, 1]; where squares overlap they add up.

        Args:
            clusters: squares per class.
            size: their side in pixels, at most ``height`` and ``width``.
            mask: the share of the pattern in the pixels that it covers.
        """
        masks, patterns = torch.zeros(2, classes, 1, height, width).unbind()
        for k in range(classes):
            draw = stream_generator(seed, "trapdoor", k)
            for _ in range(clusters):
                top, left = (
                    int(torch.randint(side - size + 1, (), generator=draw))
                    for side in (height, width)
                )
                mean, spread = torch.rand(2, generator=draw)
                square = (mean + spread * torch.randn(size, size, generator=draw)).clamp(0, 1)
                at = k, 0, slice(top, top + size), slice(left, left + size)
                masks[at] = mask
                patterns[at] += square
        return cls(masks, patterns.clamp(max=1))

    @classmethod
    def kept_in(cls, kept: Mapping[str, Tensor]) -> "Trapdoors | None":
        """Return the trapdoors among tensors that a training kept; None: there are none."""
        found = {
            end: tensor
            for end in (MASKS, PATTERNS)
            for k, tensor in kept.items()
            if k.endswith(end)
        }
        return cls(found[MASKS], found[PATTERNS]) if len(found) == 2 else None

    def put_on(self, x: Tensor, classes: Tensor) -> Tensor:
        """Return images (B, C, H, W), each with the trapdoor of the class in ``classes`` (B)."""
        mask, pattern = (each.to(x)[classes] for each in (self.masks, self.patterns))
        return mask * pattern + (1 - mask) * x
