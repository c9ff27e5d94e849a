"""Tests of whether two recipes differ on the same test images, and by how much.

Sources: McNemar (1947) with the exact binomial distribution; Newcombe (1998), Improved confidence
intervals for the difference between binomial proportions based on paired data, method 10; Zou and
Donner (2008), Construction of confidence limits about effect measures, for the same construction
from other intervals and another correlation.
"""

from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING

from robustbench_cli.report.sampling import Sample, student_p
from robustbench_cli.report.statistics import wilson

if TYPE_CHECKING:
    import numpy as np

SIGNIFICANT = 0.05
"""Two recipes are told apart where p is below this."""
_DRAWS = 4000
"""Random signs that are drawn where they cannot all be counted."""
_KEY = 20070612
"""A fixed key of the random signs: the same verdicts always have the same p."""


@dataclass(frozen=True, kw_only=True)
class PairedTable:
    """Two recipes on the same N images: in how many both are right, one of them, or none.

    With several seeds, or a randomised model, each count is the average over pairs of seeds.
    """

    both_right: float
    only_first: float
    only_second: float
    both_wrong: float
    p: float
    """Two-sided: how probable a difference at least as large is, if there is none."""
    interval: tuple[float, float]
    """95 %, of the difference."""
    exact: bool
    """True if p is McNemar's and the interval Newcombe's; False if images and seeds were
    resampled."""

    @property
    def n(self) -> float:
        """The number of images."""
        return self.both_right + self.only_first + self.only_second + self.both_wrong

    @property
    def difference(self) -> float:
        """The share of the first less that of the second."""
        return (self.only_first - self.only_second) / self.n


def paired_table(first: Sample, second: Sample) -> PairedTable:
    """Return the comparison of two recipes on the same images."""
    a, b = first.image_means, second.image_means
    both, alone = float(a @ b), float(a @ (1 - b))
    other, none = float((1 - a) @ b), float((1 - a) @ (1 - b))
    exact = first.is_binary and second.is_binary
    if exact:
        both, alone, other, none = map(round, (both, alone, other, none))
    return PairedTable(
        both_right=both,
        only_first=alone,
        only_second=other,
        both_wrong=none,
        p=paired_p(first, second),
        interval=(
            newcombe(both, alone, other, none) if exact else _resampled_interval(first, second)
        ),
        exact=exact,
    )


def paired_p(first: Sample, second: Sample) -> float:
    """Return the two-sided p value of a difference between two recipes on the same images.

    One seed each: McNemar's exact test.  Several: the larger of two p values, of random signs of
    the images' differences (the seeds as they are), and of Student's t with the variance of the
    bootstrap over images and seeds.
    """
    apart = first.image_means - second.image_means
    if first.is_binary and second.is_binary:
        return mcnemar_p(int((apart > 0).sum()), int((apart < 0).sum()))
    return max(_resampled_p(first, second), sign_flip_p(apart))


def distinguishable(first: Sample, second: Sample) -> bool:
    """Return True if a paired test tells two recipes apart."""
    exact = first.is_binary and second.is_binary
    # The cheaper of the two tests first.
    if not exact and _resampled_p(first, second) >= SIGNIFICANT:
        return False
    return paired_p(first, second) < SIGNIFICANT


def mcnemar_p(only_first: int, only_second: int) -> float:
    """Return the two-sided p value of McNemar's exact test for two counts of discordant images."""
    n, fewer = only_first + only_second, min(only_first, only_second)
    term = total = 1  # C(n, 0)
    for k in range(1, fewer + 1):
        term = term * (n - k + 1) // k
        total += term
    return min(1.0, float(2 * total / 2**n))


def sign_flip_p(apart: "np.ndarray") -> float:
    """Return the two-sided p value of a mean difference under random signs.

    Args:
        apart: the difference for each image (N).
    """
    import numpy as np

    sizes, counts = np.unique(np.abs(apart[apart != 0]).round(9), return_counts=True)
    if not len(sizes):
        return 1.0
    if len(sizes) == 1:
        return mcnemar_p(int((apart > 0).sum()), int((apart < 0).sum()))
    noise = np.random.default_rng(_KEY)
    sums = np.zeros(_DRAWS)
    for size, count in zip(sizes, counts, strict=True):
        sums += size * (2.0 * noise.binomial(count, 0.5, _DRAWS) - count)
    extreme = int((np.abs(sums) >= abs(float(apart.sum())) - 1e-6).sum())
    return (1 + extreme) / (1 + _DRAWS)


def newcombe(
    both_right: float, only_first: float, only_second: float, both_wrong: float
) -> tuple[float, float]:
    """Return the 95 % interval of the difference of two paired shares (Newcombe, 1998, method 10).

    Args:
        both_right: images in the upper left of the paired table, and so on.
    """
    n = both_right + only_first + only_second + both_wrong
    first, second = both_right + only_first, both_right + only_second
    product = first * (n - first) * second * (n - second)
    apart = both_right * both_wrong - only_first * only_second
    corrected = max(apart - n / 2, 0) if apart > 0 else apart
    correlation = corrected / sqrt(product) if product else 0.0
    ends = wilson(first, n), wilson(second, n)
    return _square_and_add(first / n, second / n, *ends, correlation)


def _square_and_add(
    first: float,
    second: float,
    of_first: tuple[float, float],
    of_second: tuple[float, float],
    correlation: float,
) -> tuple[float, float]:
    """The interval of a difference from those of its two parts and their correlation."""

    def reach(up: float, down: float) -> float:
        return sqrt(max(0.0, up**2 - 2 * correlation * up * down + down**2))

    difference = first - second
    low = difference - reach(first - of_first[0], of_second[1] - second)
    high = difference + reach(of_first[1] - first, second - of_second[0])
    return max(-1.0, low), min(1.0, high)


def _covariance(first: Sample, second: Sample) -> float:
    """The covariance of two means, which share the images and not the seeds."""
    a, b = first.image_means, second.image_means
    return float(((a - a.mean()) * (b - b.mean())).mean()) / first.images


def _resampled_interval(first: Sample, second: Sample) -> tuple[float, float]:
    product = first.variance * second.variance
    correlation = _covariance(first, second) / sqrt(product) if product > 0 else 0.0
    ends = first.interval, second.interval
    return _square_and_add(first.mean, second.mean, *ends, correlation)


def _resampled_p(first: Sample, second: Sample) -> float:
    variance = first.variance + second.variance - 2 * _covariance(first, second)
    return student_p(first.mean - second.mean, variance, [first, second])
