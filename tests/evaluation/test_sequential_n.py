"""Looks at ever more images: what their intervals cover in simulation, and exact values."""

import re
from functools import lru_cache
from math import comb
from pathlib import Path

import numpy as np
import pytest

from robustbench_cli.evaluation.sequential_n import (
    FIRST_LOOK,
    Look,
    clopper_pearson,
    planned_sizes,
)
from robustbench_cli.runs.widened_n import WidenedN


def test_looks_double_and_end_with_all_images():
    assert planned_sizes(10_000) == (250, 500, 1000, 2000, 4000, 8000, 10_000)
    assert planned_sizes(FIRST_LOOK) == (FIRST_LOOK,)
    assert planned_sizes(3) == (3,)


@pytest.mark.parametrize(("right", "n"), [(0, 10), (3, 10), (10, 10), (41, 50)])
def test_the_ends_are_where_the_count_is_just_not_too_unlikely(right, n):
    def at_most(count, share):
        return sum(comb(n, k) * share**k * (1 - share) ** (n - k) for k in range(count + 1))

    low, high = clopper_pearson(right, right, n, 0.05)
    assert (low == 0) if right == 0 else at_most(right - 1, low) == pytest.approx(0.975)
    assert (high == 1) if right == n else at_most(right, high) == pytest.approx(0.025)


@pytest.mark.parametrize(("share", "images"), [(0.6, 8000), (0.9, 2000)])
def test_so_many_images_are_enough_as_the_page_says(share, images):
    """docs/evaluation.md: ``--within 2`` of 10,000 images."""
    sizes = planned_sizes(10_000)
    ends = [Look(sizes=sizes, number=k).interval(share * n, share * n) for k, n in enumerate(sizes)]
    enough = [n for n, (low, high) in zip(sizes, ends, strict=True) if 50 * (high - low) <= 2]
    assert enough[0] == images
    page = Path(__file__).parents[2].joinpath("docs", "evaluation.md").read_text()
    assert re.search(f"near {share:.0%}: {images:,}".replace("%", " %"), page)


def test_two_ends_reach_further_than_one_number():
    look = Look(sizes=(250, 500), number=1)
    low, high = look.interval(300, 320, sampled=True)
    assert low < look.interval(300, 300)[0]
    assert high > look.interval(320, 320)[1]


def test_the_error_of_looks_and_tails_adds_up_to_alpha():
    sizes = planned_sizes(10_000)
    look = Look(sizes=sizes, number=0)
    tails = 3 * look.tail_alpha(3)
    assert len(sizes) * (tails + look.each_alpha / 2) == pytest.approx(look.alpha)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.5, 0.87])
@pytest.mark.parametrize("points", [1.5, 4.0])
def test_in_simulation_the_interval_covers_the_truth(share, points):
    """10,000 evaluations that stop when it suits, of images that are right with this chance."""
    sizes, draws = planned_sizes(4000), np.random.default_rng(int(share * 100 + points))
    counts = np.zeros((10_000, len(sizes)), int)
    steps = np.diff([0, *sizes])
    counts[:] = draws.binomial(steps, share, counts.shape).cumsum(1)
    ends = lru_cache(maxsize=None)(lambda at, c: Look(sizes=sizes, number=at).interval(c, c))
    covered, stopped = 0, set()
    for row in counts:
        for at, right in enumerate(row):
            low, high = ends(at, int(right))
            if 50 * (high - low) <= points:
                break
        stopped.add(at)
        covered += low <= share <= high
    assert covered >= 9_500
    assert min(stopped) < len(sizes) - 1 or share == 0.5 or points == 1.5


def test_all_numbers_under_attack_must_be_known_well_enough():
    def widened(**changes):
        known = {"asked": 2.0, "sizes": [250, 500], "looks": 1, "alpha": 0.05, "clean": (0.1, 0.9)}
        return WidenedN(**(known | changes))

    assert widened(attacks={"a": (0.50, 0.54)}).enough
    assert not widened(attacks={"a": (0.50, 0.54), "b": (0.50, 0.55)}).enough
    worse = widened(attacks={"a": (0.50, 0.54)}, worst=(0.40, 0.50))
    assert worse.points == pytest.approx(5)
    assert worse.goes_on
    assert not widened(attacks={"a": (0.0, 1.0)}, looks=2).goes_on
