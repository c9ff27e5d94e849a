"""Paired tests and intervals, against scipy and published values."""

import numpy as np
import pytest
from scipy import stats

from robustbench_cli.report.paired_tests import (
    distinguishable,
    mcnemar_p,
    newcombe,
    paired_p,
    paired_table,
    sign_flip_p,
)
from robustbench_cli.report.sampling import Sample


def answers(both, first, second, none):
    """Two samples with these counts of images, one seed each."""
    one = [1] * (both + first) + [0] * (second + none)
    other = [1] * both + [0] * first + [1] * second + [0] * none
    return Sample(np.array([one], float)), Sample(np.array([other], float))


@pytest.mark.parametrize(
    ("only_first", "only_second"), [(0, 0), (1, 0), (5, 0), (3, 9), (12, 2), (40, 61), (700, 600)]
)
def test_mcnemar_is_the_exact_binomial_test(only_first, only_second):
    n = only_first + only_second
    expected = stats.binomtest(only_first, n, 0.5).pvalue if n else 1.0
    assert mcnemar_p(only_first, only_second) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("swapped", [False, True])
def test_newcombe_gives_the_published_interval(swapped):
    """Altman et al. (2000), Statistics with Confidence, 2nd ed., p. 52: 0.122, 0.011 to 0.226."""
    low, high = newcombe(14, 0, 5, 22) if swapped else newcombe(14, 5, 0, 22)
    low, high = (-high, -low) if swapped else (low, high)
    assert (low, high) == pytest.approx((0.011, 0.226), abs=6e-4)


@pytest.mark.parametrize("counts", [(10, 0, 0, 0), (0, 0, 0, 10), (5, 0, 0, 5), (0, 10, 0, 0)])
def test_newcombe_s_interval_holds_the_difference_at_the_edges(counts):
    low, high = newcombe(*counts)
    difference = (counts[1] - counts[2]) / 10
    assert -1 <= low <= difference <= high <= 1
    assert high - low > 0


def test_the_paired_table_of_one_seed_is_counted():
    found = paired_table(*answers(30, 12, 3, 5))
    counts = (found.both_right, found.only_first, found.only_second, found.both_wrong)
    assert counts == (30, 12, 3, 5)
    assert found.difference == pytest.approx(0.18)
    assert found.exact
    assert found.p == mcnemar_p(12, 3)
    assert found.interval == newcombe(30, 12, 3, 5)


def test_the_paired_table_of_several_seeds_averages_over_their_pairs():
    first = Sample(np.array([[1, 1, 0, 0], [1, 0, 1, 0]], float))
    second = Sample(np.array([[1, 0, 0, 0]], float))
    found = paired_table(first, second)
    counts = (found.both_right, found.only_first, found.only_second, found.both_wrong)
    assert counts == pytest.approx((1, 1, 0, 2))
    assert found.difference == pytest.approx(0.25)
    assert not found.exact


def test_random_signs_are_mcnemar_s_test_for_one_seed():
    first, second = answers(10, 9, 2, 4)
    apart = first.image_means - second.image_means
    assert sign_flip_p(apart) == mcnemar_p(9, 2)


def test_random_signs_agree_with_scipy():
    apart = np.random.default_rng(0).integers(-2, 4, 60) / 3
    expected = stats.permutation_test(
        (apart,), np.mean, permutation_type="samples", n_resamples=20_000, rng=1
    ).pvalue
    assert sign_flip_p(apart) == pytest.approx(expected, abs=0.02)
    assert sign_flip_p(apart) == sign_flip_p(-apart) == sign_flip_p(apart[::-1])


def test_several_seeds_of_one_recipe_are_rarely_told_apart():
    """Two groups of seeds with the same distribution; 5 % at most, with room for chance."""
    rng = np.random.default_rng(5)
    told = 0
    for _ in range(300):
        hard = rng.normal(0, 2.5, 200)
        first, second = (
            Sample((hard + rng.normal(0, 0.8, (3, 200)) + rng.normal(0, 0.3, (3, 1)) > 0) * 1.0)
            for _ in range(2)
        )
        told += distinguishable(first, second)
    assert told / 300 < 0.08


def test_seeds_that_differ_more_than_the_recipes_tell_nothing():
    """On many images every difference between two networks is real; between recipes it is not."""
    n = 4000
    made = [np.arange(n) < right for right in (2000, 2400, 1900, 1950)]
    first, second = Sample(np.array(made[:2], float)), Sample(np.array(made[2:], float))
    assert paired_p(first, second) > 0.1
    assert paired_p(Sample(first.values[1:]), Sample(second.values[1:])) < 1e-6


def test_the_interval_of_several_seeds_mirrors_the_order():
    rng = np.random.default_rng(7)
    first, second = (Sample((rng.random((3, 80)) < p) * 1.0) for p in (0.7, 0.5))
    one, other = paired_table(first, second), paired_table(second, first)
    assert one.interval == pytest.approx((-other.interval[1], -other.interval[0]))
    assert one.p == pytest.approx(other.p)
    assert one.interval[0] < one.difference < one.interval[1]


def test_a_randomised_model_counts_by_its_shares():
    shares = np.array([[1.0, 0.5, 0.25, 0.0]])
    found = paired_table(Sample(shares), Sample(np.array([[1.0, 0.0, 0.0, 0.0]])))
    assert not found.exact
    assert found.only_first == pytest.approx(0.75)
    assert found.difference == pytest.approx(0.75 / 4)
