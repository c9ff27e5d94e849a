"""How many images an evaluation takes: ever more, until an interval is as narrow as was asked.

The looks are decided before the first one and share the error among them, so that each interval
holds although the evaluation stops when it suits: equal parts, by Bonferroni's inequality.  Images
come in a random order.
"""

from dataclasses import dataclass

from robustbench_cli.evaluation.tail_sampling import BOUND_MISSES
from robustbench_cli.runs.widened_n import WidenedN

FIRST_LOOK = 250
"""The images of the first look; each later one takes twice as many."""


def planned_sizes(images: int) -> tuple[int, ...]:
    """Return the number of images at each look; the last is at all of them.

    Args:
        images: how many there are, at least 1.
    """
    sizes, size = [], FIRST_LOOK
    while size < images:
        sizes.append(size)
        size *= 2
    return (*sizes, images)


@dataclass(frozen=True, kw_only=True)
class Look:
    """One look at the first images of an evaluation."""

    sizes: tuple[int, ...]
    """The images at each look (``planned_sizes``)."""
    number: int
    """Which one this is, from 0."""
    alpha: float = BOUND_MISSES
    """The probability with which an interval may be wrong, over all looks."""

    @property
    def n(self) -> int:
        """The images of this look."""
        return self.sizes[self.number]

    def was_taken(self, widened: WidenedN | None) -> bool:
        """Return whether an unfinished evaluation has nothing left to do at this look.

        Its last look is taken again where none follows: what comes after the attacks, checks and
        certificates, may be missing.

        Args:
            widened: what its record says; None: nothing yet.
        """
        return widened is not None and self.number < widened.looks - (not widened.goes_on)

    @property
    def each_alpha(self) -> float:
        """The share of the error that one look may spend."""
        return self.alpha / len(self.sizes)

    def tail_alpha(self, series: int) -> float:
        """Return the error of each sampled tail at a look: half of it is for all tails together.

        Args:
            series: the attacks whose tails are sampled, at least 1.
        """
        return self.each_alpha / 2 / series

    def interval(self, least: float, most: float, *, sampled: bool = False) -> tuple[float, float]:
        """Return the interval of an accuracy.

        Args:
            least: right answers of the n, at least: the lower end, if a tail left something open.
            most: right answers at most.
            sampled: whether a tail was sampled, which has its half of the error.
        """
        alpha = self.each_alpha / 2 if sampled else self.each_alpha
        return clopper_pearson(least, most, self.n, alpha)


def clopper_pearson(least: float, most: float, n: int, alpha: float) -> tuple[float, float]:
    """Return the exact interval of a share (Clopper and Pearson, 1934), wrong with alpha at most.

    Args:
        least: successes, from which the lower end follows.
        most: successes, at least as many, from which the upper end follows.
        n: trials.
    """
    from scipy.stats import beta  # type: ignore[import-untyped]  # slow to import

    low = float(beta.ppf(alpha / 2, least, n - least + 1)) if least > 0 else 0.0
    high = float(beta.ppf(1 - alpha / 2, most + 1, n - most)) if most < n else 1.0
    return low, high
