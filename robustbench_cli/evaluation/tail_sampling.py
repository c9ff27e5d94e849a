"""How many images the last members of a series of attacks must see, for a bound that can be stated.

Of the images that stand after the first members, the last ones are tried on all that are closest to
an error, one in twenty, since what they break is mostly among these.  Of the R others they are
tried on m, drawn in a keyed random order, and break b.  How many they would break of the R, B, is
at most the largest number at which so few as b among m are not too unlikely: the exact one-sided
bound of the hypergeometric distribution (Clopper and Pearson, 1934,
https://doi.org/10.1093/biomet/26.4.404, for draws without replacement).  Looks are decided
beforehand and share the error among them.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from robustbench_cli.core.example_rng import Noise

BOUND_MISSES = 0.05
"""The probability with which a bound may be wrong, over all looks."""
CLOSEST = 20
"""One in so many of the standing images is seen because it is close to an error, not by chance."""
_WORTH = 0.9
"""The part of the drawn images up to which a look saves enough for its share of the error."""
_GROWTH = 1.5
"""How many times as many drawn images each look has as the one before."""


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
    closest: int
    """Those of them that are seen because they are close to an error; all others are drawn."""
    looks: tuple[int, ...]
    """How many images have been seen at each look, rising; the last look is at all of them."""
    alpha: float = BOUND_MISSES

    def alpha_at(self, looked_at: int) -> float:
        """Return the error that a look may spend: half of all at the first one.

        The others share the rest; the look at all images needs none.
        """
        others = len(self.looks) - 2
        if others < 1:
            return self.alpha
        return self.alpha / 2 if looked_at == self.looks[0] else self.alpha / 2 / others

    def at_most(self, looked_at: int, broken: int, of_closest: int) -> int:
        """Return the bound of what the tail would break of all standing images, after a look.

        Args:
            looked_at: the images that it has seen.
            broken: those of them that it broke.
            of_closest: those that it broke of the closest.
        """
        if looked_at == self.standing:
            return broken
        drawn, alpha = self.standing - self.closest, self.alpha_at(looked_at)
        return of_closest + broken_at_most(
            drawn, looked_at - self.closest, broken - of_closest, alpha
        )

    def enough(self, looked_at: int, broken: int, of_closest: int) -> bool:
        """Return whether what is undecided is within the tolerance."""
        return self.at_most(looked_at, broken, of_closest) - broken <= self.tolerance


@dataclass(frozen=True, kw_only=True)
class TailRule:
    """How exactly the tails of an evaluation are to be known."""

    tolerance: int
    """How many standing images a tail may leave undecided."""
    alpha: float = BOUND_MISSES
    """The probability with which the bound of a tail may be wrong."""

    @property
    def few(self) -> int:
        """The images that a member breaks at most for those after it to be the tail."""
        return self.tolerance // 5

    def plan(self, standing: int) -> TailPlan:
        """Return the looks at a tail before which so many images stand."""
        return plan_looks(standing, self.tolerance, self.alpha)


def plan_looks(standing: int, tolerance: int, alpha: float = BOUND_MISSES) -> TailPlan:
    """Return the looks for a tail: the first is as small as it can be, each later one is larger.

    The first is the smallest at which the bound is within the tolerance if nothing is broken.

    Args:
        standing: the images that stand before the tail.
        tolerance: how many of them may be left undecided, at least 0.
    """
    closest = _closest(standing)
    drawn = standing - closest
    looks = _looks(drawn, _smallest_look(drawn, tolerance, alpha))
    if len(looks) > 1:
        looks = _looks(drawn, _smallest_look(drawn, tolerance, alpha / 2))
    return TailPlan(
        standing=standing,
        tolerance=tolerance,
        closest=closest,
        looks=(*(closest + look for look in looks), standing),
        alpha=alpha,
    )


def _closest(standing: int) -> int:
    return -(-standing // CLOSEST)


def _looks(drawn: int, first: int) -> list[int]:
    looks = []
    while first <= _WORTH * drawn:
        looks.append(first)
        first = math.ceil(_GROWTH * first)
    return looks


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


def tail_order(rows: Tensor, margins: Tensor, noise: Noise) -> Tensor:
    """Return standing examples in the order in which the tail sees them.

    First come the closest ones, which are all seen, then the others.  Their order depends on seed
    and example only, not on index, margin or batch.

    Args:
        rows: positions (S, int64).
        margins: by how much each has come close to an error (S), the higher the closer.
        noise: keyed by example, for all examples.
    """
    by_margin = rows[margins.argsort(descending=True, stable=True)]
    closest, others = by_margin.tensor_split([_closest(len(rows))])
    others = others.sort().values
    keyed = noise.only(others).fork("tail order")
    draws = keyed.uniform(torch.zeros(len(others), 1, dtype=torch.float64, device=rows.device))
    return torch.cat([closest, others[draws.squeeze(1).argsort(stable=True)]])
