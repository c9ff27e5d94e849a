"""How many images the last members of a series of attacks must see, for a bound that can be stated.

Of the S images that stand after the first members, the last ones are tried on m, drawn in a keyed
random order.  They break b of these.  How many they would break of all S, B, is at most the largest
number at which so few as b among m are not too unlikely: the exact one-sided bound of the
hypergeometric distribution (Clopper and Pearson, 1934, https://doi.org/10.1093/biomet/26.4.404, for
draws without replacement).  Looks are decided beforehand and share the error among them.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from robustbench_cli.core.example_rng import Noise

BOUND_MISSES = 0.05
"""The probability with which a bound may be wrong, over all looks."""


@lru_cache(maxsize=4096)
def broken_at_most(standing: int, looked_at: int, broken: int, alpha: float) -> int:
    """Return an upper bound of how many of all standing images the tail would break.

    It is the largest B with P(X <= broken | S, B, m) >= alpha.

    Args:
        standing: S, the images that stand before the tail.
        looked_at: m, those of them that the tail has seen, at least 0.
        broken: b, those of the m that it broke.
        alpha: the probability with which the bound may be too low.
    """
    from scipy.stats import hypergeom  # type: ignore[import-untyped]  # slow to import

    low, high = broken, standing - (looked_at - broken)
    while low < high:  # the probability falls as B grows
        middle = (low + high + 1) // 2
        # Rounding must not leave out a number that is exactly as unlikely as may be.
        if hypergeom.cdf(broken, standing, middle, looked_at) >= alpha * (1 - 1e-12):
            low = middle
        else:
            high = middle - 1
    return low


@dataclass(frozen=True, kw_only=True)
class TailPlan:
    """The looks at the tail, decided before the first one."""

    standing: int
    """The images that stand before the tail."""
    tolerance: int
    """How many of them may be left undecided."""
    looks: tuple[int, ...]
    """How many images have been seen at each look, rising; the last look is at all of them."""
    alpha: float = BOUND_MISSES

    @property
    def each_alpha(self) -> float:
        """The share of the error that one look may spend; that at all images needs none."""
        return self.alpha / max(1, len(self.looks) - 1)

    def at_most(self, looked_at: int, broken: int) -> int:
        """Return the bound of what the tail would break of all standing images, after a look."""
        if looked_at == self.standing:
            return broken
        return broken_at_most(self.standing, looked_at, broken, self.each_alpha)

    def enough(self, looked_at: int, broken: int) -> bool:
        """Return whether what is undecided is within the tolerance."""
        return self.at_most(looked_at, broken) - broken <= self.tolerance


@dataclass(frozen=True, kw_only=True)
class TailRule:
    """How exactly the tails of an evaluation are to be known."""

    tolerance: int
    """How many standing images a tail may leave undecided."""
    alpha: float = BOUND_MISSES
    """The probability with which the bound of a tail may be wrong."""

    def plan(self, standing: int) -> TailPlan:
        """Return the looks at a tail before which so many images stand."""
        return plan_looks(standing, self.tolerance, self.alpha)


def plan_looks(standing: int, tolerance: int, alpha: float = BOUND_MISSES) -> TailPlan:
    """Return the looks for a tail: the first is as small as it can be, each later one is double.

    The first is the smallest at which the bound is within the tolerance if nothing is broken.  How
    many looks there are decides how much error each may spend, and so the first one; the plan is
    the first that agrees with itself.

    Args:
        standing: the images that stand before the tail.
        tolerance: how many of them may be left undecided, at least 0.
    """
    for many in range(1, 64):
        first = _smallest_look(standing, tolerance, alpha / many)
        looks = []
        while first < standing:
            looks.append(first)
            first *= 2
        if len(looks) <= many:
            break
    return TailPlan(standing=standing, tolerance=tolerance, looks=(*looks, standing), alpha=alpha)


def _smallest_look(standing: int, tolerance: int, alpha: float) -> int:
    low, high = 1, max(1, standing)
    while low < high:
        middle = (low + high) // 2
        if broken_at_most(standing, middle, 0, alpha) <= tolerance:
            high = middle
        else:
            low = middle + 1
    return low


def allowed_undecided(points: float, n: int) -> int:
    """Return how many of ``n`` images make up so many points of accuracy, rounded down."""
    return math.floor(points / 100 * n + 1e-9)


def tail_order(rows: Tensor, noise: Noise) -> Tensor:
    """Return standing examples in the order in which the tail sees them.

    It depends on seed and example only, not on index, margin or batch.

    Args:
        rows: positions (S, int64).
        noise: keyed by example, for all examples.
    """
    keyed = noise.only(rows).fork("tail order")
    draws = keyed.uniform(torch.zeros(len(rows), 1, dtype=torch.float64, device=rows.device))
    return rows[draws.squeeze(1).argsort(stable=True)]
