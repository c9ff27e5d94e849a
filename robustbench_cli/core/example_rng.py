"""Random numbers that belong to an example, not to its place in a batch.

Same seed, same purpose, same example: same numbers, whatever the batch size, the order, the
device, or which neighbours have already been broken.  A counter-based generator (the splitmix64
finaliser over key + counter, Steele et al., 2014) makes that cost a few integer operations a
number and no loop over examples.
"""

import hashlib
import math
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

_GAMMA = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit integer
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB


def stream_key(*parts: object) -> int:
    """A signed 64-bit integer that stands for ``parts``: stable across runs and machines."""
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def stream_generator(*parts: object) -> torch.Generator:
    """A CPU generator for draws that belong to a whole run, such as the order of an epoch."""
    return torch.Generator().manual_seed(stream_key(*parts) & 0x7FFFFFFFFFFFFFFF)


@dataclass(frozen=True)
class Noise:
    """A source of randomness for the examples ``ids`` (int64, on the device of the data)."""

    seed: int
    ids: Tensor
    stream: str = ""
    turn: Tensor | None = None
    """Which draw of the stream each example is at (int64, like ``ids``); None: the only one."""

    def fork(self, purpose: object) -> "Noise":
        """An independent source for one purpose, e.g. ``fork("start")``."""
        return replace(self, stream=f"{self.stream}/{purpose}")

    def only(self, rows: Tensor | slice) -> "Noise":
        """The same source for the examples that ``rows`` (a mask or indices) selects."""
        return replace(
            self, ids=self.ids[rows], turn=None if self.turn is None else self.turn[rows]
        )

    def at(self, turn: Tensor) -> "Noise":
        """An independent source for each example's ``turn``, e.g. how many steps it has taken.

        Examples side by side in a batch may be at different steps; a fork is the same for all.
        """
        return replace(self, turn=turn)

    def uniform(self, like: Tensor) -> Tensor:
        """Numbers in [0, 1) with the shape, type and place of ``like`` (B, ...)."""
        return self._uniform(like, "uniform")

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal numbers with the shape, type and place of ``like`` (B, ...)."""
        # Box-Muller; 1 - u lies in (0, 1], so the logarithm is finite.
        radius = (-2 * torch.log(1 - self._uniform(like, "radius"))).sqrt()
        return radius * torch.cos(2 * math.pi * self._uniform(like, "angle"))

    def _uniform(self, like: Tensor, purpose: str) -> Tensor:
        count = like[0].numel() if len(like) else 0
        rows = _begun(self.seed, self.stream, purpose, self.ids.to(like.device))
        if self.turn is not None:
            rows = _mix(rows + (self.turn.to(like.device) + 1) * _GAMMA)
        counter = torch.arange(1, count + 1, device=like.device) * _GAMMA
        bits = _mix(rows[:, None] + counter)
        # The top 24 bits fill a float32 significand exactly.
        unit = ((bits >> 40) & 0xFFFFFF).to(like.dtype) * 2.0**-24
        return unit.view(like.shape)


@lru_cache(maxsize=64)
def _begun(seed: int, stream: str, purpose: str, ids: Tensor) -> Tensor:
    """The mixing that is the same at every turn; a search of thousands of looks does it once."""
    return _mix(_mix(ids + stream_key(seed, stream, purpose)) + _GAMMA)


def _mix(z: Tensor) -> Tensor:
    """The splitmix64 finaliser; shifts are made logical by masking the sign's copies away."""
    z = (z ^ ((z >> 30) & 0x3FFFFFFFF)) * _MIX_1
    z = (z ^ ((z >> 27) & 0x1FFFFFFFFF)) * _MIX_2
    return z ^ ((z >> 31) & 0x1FFFFFFFF)
