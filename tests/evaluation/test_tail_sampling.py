"""Bounds of a sampled tail: exact values, and what they cover in simulation."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustbench_cli.core.example_rng import Noise
from robustbench_cli.evaluation.tail_sampling import (
    allowed_undecided,
    broken_at_most,
    plan_looks,
    tail_order,
)


def chance(broken, standing, all_broken, looked_at):
    """P(X <= broken) of the hypergeometric distribution, by counting: a fraction."""
    ways = sum(
        math.comb(all_broken, k) * math.comb(standing - all_broken, looked_at - k)
        for k in range(broken + 1)
    )
    return Fraction(ways, math.comb(standing, looked_at))


@settings(deadline=None)
@given(st.integers(1, 60), st.data())
def test_the_bound_is_the_largest_number_that_is_not_too_unlikely(standing, data):
    looked_at = data.draw(st.integers(0, standing))
    broken = data.draw(st.integers(0, looked_at))
    alpha = data.draw(st.sampled_from([0.05, 0.01, 0.025]))
    most = broken_at_most(standing, looked_at, broken, alpha)
    largest = standing - (looked_at - broken)
    likely = [
        b
        for b in range(broken, largest + 1)
        if chance(broken, standing, b, looked_at) >= Fraction(str(alpha))
    ]
    assert most == max([broken, *likely])


def test_a_number_that_is_exactly_as_unlikely_as_may_be_counts():
    assert chance(0, 25, 19, 2) == Fraction(1, 20)
    assert broken_at_most(25, 2, 0, 0.05) == 19


@pytest.mark.parametrize(("standing", "tolerance", "first"), [(250, 10, 59), (2500, 50, 142)])
def test_the_examples_of_the_specification(standing, tolerance, first):
    """One look, nothing broken: a quarter of the tail, and 6 % of it."""
    assert broken_at_most(standing, first, 0, 0.05) <= tolerance
    assert broken_at_most(standing, first - 1, 0, 0.05) > tolerance


@settings(deadline=None)
@given(st.integers(0, 3000), st.integers(0, 60))
def test_looks_rise_to_all_images_and_share_the_error(standing, tolerance):
    plan = plan_looks(standing, tolerance)
    assert plan.looks[-1] == standing
    assert list(plan.looks) == sorted(set(plan.looks))
    assert sum(map(plan.alpha_at, plan.looks[:-1])) <= plan.alpha + 1e-12
    assert plan.enough(standing, min(standing, 5), 0)
    assert plan.closest == math.ceil(standing / 20)
    if len(plan.looks) > 1:
        assert plan.closest < plan.looks[0]
        assert plan.enough(plan.looks[0], 0, 0)
        assert plan.enough(plan.looks[0], plan.closest, plan.closest)  # they are all known


def test_what_the_closest_break_is_known_and_no_sample():
    plan = plan_looks(890, 10)
    look = plan.looks[0]
    drawn = broken_at_most(890 - plan.closest, look - plan.closest, 1, plan.alpha / 2)
    assert plan.at_most(look, 8, 7) == 7 + drawn
    assert plan.at_most(look, 8, 0) > 2 * plan.at_most(look, 8, 7)


def test_without_tolerance_all_are_seen():
    assert plan_looks(40, 0).looks == (40,)
    assert plan_looks(10, 0).looks == (10,)
    assert plan_looks(0, 10).looks == (0,)


@pytest.mark.parametrize(("n", "points", "images"), [(1000, 1, 10), (1000, 0.5, 5), (50, 1, 0)])
def test_points_are_images(n, points, images):
    assert allowed_undecided(points, n) == images


@pytest.mark.parametrize("blind", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.03, 0.1, 0.4])
def test_in_simulation_the_bound_covers_the_truth(share, blind):
    """10,000 tails of which this share breaks: stop at the first look that suffices.

    Those that break are the closest to an error, or their margins say nothing.
    """
    standing, tolerance, draws = 400, 10, np.random.default_rng(int(1000 * share))
    plan, all_broken = plan_looks(standing, tolerance), round(share * standing)
    assert len(plan.looks) > 2
    covered = 0
    for _ in range(10_000):
        order = np.arange(standing) < all_broken
        drawn = order if blind else order[plan.closest :]
        draws.shuffle(drawn)  # in place
        of_closest = int(order[: plan.closest].sum())
        for looked_at in plan.looks:
            broken = int(order[:looked_at].sum())
            if plan.enough(looked_at, broken, of_closest):
                break
        covered += broken <= all_broken <= plan.at_most(looked_at, broken, of_closest)
    assert covered >= 9_500


def test_the_order_depends_on_seed_and_example_only():
    noise, margins = Noise(3, torch.arange(100) + 1000), torch.rand(100)
    rows = torch.randperm(100)[:60]
    found = tail_order(rows, margins[rows], noise)
    assert sorted(found.tolist()) == sorted(rows.tolist())
    again = rows.sort().values
    assert torch.equal(found, tail_order(again, margins[again], noise))
    closest, others = found[:3], found[3:]
    assert margins[closest].min() >= margins[others].max()
    more = tail_order(again, 1 - margins[again], noise)
    both = {*found[3:].tolist()} & {*more[3:].tolist()}
    in_order = [row for row in found.tolist() if row in both]
    assert in_order == [row for row in more.tolist() if row in both]
    other = tail_order(rows, margins[rows], Noise(4, torch.arange(100) + 1000))
    assert torch.equal(found[:3], other[:3])
    assert not torch.equal(found[3:], other[3:])
    assert others.tolist() != others.sort().values.tolist()
