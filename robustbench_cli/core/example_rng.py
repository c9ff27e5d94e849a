"""Random numbers keyed by example, not by the position in a batch.

The same seed, purpose and example give the same numbers, whatever the batch size, the order, the
device, or the other examples of the batch.  A counter-based generator (the splitmix64 finaliser
over key + counter; Steele et al., 2014, https://doi.org/10.1145/2660193.2660195) needs only a few
integer operations for each number and no loop over examples.
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
    """Return a signed 64-bit hash of ``parts`` that is the same in all runs and on all machines."""
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def stream_generator(*parts: object) -> torch.Generator:
    """Return a CPU generator for draws that concern a whole run, such as the order of an epoch."""
    return torch.Generator().manual_seed(stream_key(*parts) & 0x7FFFFFFFFFFFFFFF)


@dataclass(frozen=True)
class Noise:
    """A source of random numbers for a batch of examples, one stream for each of them."""

    seed: int
    ids: Tensor
    """The examples' ids (B, int64), on the device of the data."""
    stream: str = ""
    """The purpose, as a path of the names given to ``fork``."""
    draw: Tensor | None = None
    """The index of the present draw of each example (B, int64); None: there is a single one."""

    def fork(self, purpose: object) -> "Noise":
        """Return an independent source for one purpose, e.g. ``fork("start")``."""
        return Noise(self.seed, self.ids, f"{self.stream}/{purpose}", self.draw)

    def only(self, rows: Tensor | slice) -> "Noise":
        """Return the source of the examples ``rows``: a mask (N, bool), indices (B) or a slice."""
        return replace(
            self, ids=self.ids[rows], draw=None if self.draw is None else self.draw[rows]
        )

    def at(self, draw: Tensor) -> "Noise":
        """Return an independent source for each value of ``draw`` (B, int64), e.g. the step index.

        The examples of a batch may be at different steps, which ``fork`` could not express.
        """
        return Noise(self.seed, self.ids, self.stream, draw)

    def uniform(self, like: Tensor) -> Tensor:
        """Return uniform numbers in [0, 1) of the shape, dtype and device of ``like`` (B, ...)."""
        return self._uniform(like, "uniform")

    def uniform_ahead(self, like: Tensor, draws: int) -> Tensor:
        """Return what ``uniform`` gives for the present draw and for those after it, side by side.

        For many small draws that costs little more than one of them.

        Args:
            like: one draw (B, ...), of a source that is ``at`` a draw.

        Returns:
            The numbers (B, draws, ...).
        """
        assert self.draw is not None
        where = like.device
        draw = self.draw.to(where)[:, None] + torch.arange(draws, device=where)
        bits = self._bits(like[0].numel() if len(like) else 0, "uniform", where, draw)
        return _unit(bits, like.dtype).view(len(like), draws, *like.shape[1:])

    def normal(self, like: Tensor) -> Tensor:
        """Return standard normal numbers of the shape, dtype and device of ``like`` (B, ...)."""
        # Box-Muller; 1 - u lies in (0, 1], so the logarithm is finite.
        radius = (-2 * torch.log(1 - self._uniform(like, "radius"))).sqrt()
        return radius * torch.cos(2 * math.pi * self._uniform(like, "angle"))

    def subset(self, size: int, count: int) -> Tensor:
        """Return ``count`` different numbers below ``size`` for each example, every set as likely.

        Returns:
            Numbers (B, count) int64, in no order.
        """
        # Of 64 random bits each, so that ties, which would favour the first, do not happen.
        keys = self._bits(size, "subset", self.ids.device, self.draw)
        return keys.topk(count, dim=1, sorted=False).indices

    def _uniform(self, like: Tensor, purpose: str) -> Tensor:
        bits = self._bits(like[0].numel() if len(like) else 0, purpose, like.device, self.draw)
        return _unit(bits, like.dtype).view(like.shape)

    def _bits(self, count: int, purpose: str, where: torch.device, draw: Tensor | None) -> Tensor:
        """Return ``count`` times 64 random bits for each example and draw.

        Args:
            draw: the indices of the draws, one for each example (B) or several (B, D).

        Returns:
            Bits (B, count) or (B, D, count), int64.
        """
        rows = _example_keys(self.seed, self.stream, purpose, self.ids.to(where))
        if draw is not None:
            keys = rows.view(-1, *[1] * (draw.ndim - 1))
            rows = _mix((draw.to(where) + 1).mul_(_GAMMA).add_(keys))
        return _mix(rows[..., None] + _counter(count, where))


def _unit(bits: Tensor, dtype: torch.dtype) -> Tensor:
    """Return numbers in [0, 1) (any shape): the top 24 bits fill a float32 significand exactly."""
    return (bits >> 40).bitwise_and_(0xFFFFFF).to(dtype).mul_(2.0**-24)


@lru_cache(maxsize=64)
def _example_keys(seed: int, stream: str, purpose: str, ids: Tensor) -> Tensor:
    """Return the examples' keys (B, int64), which are the same for every ``draw``.

    Cached, because attacks of thousands of queries ask for them at every query.
    """
    return _mix(_mix(ids + stream_key(seed, stream, purpose)) + _GAMMA)


@lru_cache(maxsize=64)
def _counter(count: int, where: torch.device) -> Tensor:
    """Return what tells the numbers of one draw apart (count, int64)."""
    return torch.arange(1, count + 1, device=where) * _GAMMA


def _mix(z: Tensor) -> Tensor:
    """Apply the splitmix64 finaliser to int64 values.

    The masks draw arithmetic shifts into logical ones.  What each line makes anew it changes in
    place: for few numbers most of the time goes into making tensors.
    """
    z = (z >> 30).bitwise_and_(0x3FFFFFFFF).bitwise_xor_(z).mul_(_MIX_1)
    z = (z >> 27).bitwise_and_(0x1FFFFFFFFF).bitwise_xor_(z).mul_(_MIX_2)
    return (z >> 31).bitwise_and_(0x1FFFFFFFF).bitwise_xor_(z)
