"""Intervals over test images and seeds: against a bootstrap that is really drawn, and coverage."""

import numpy as np
import pytest

from robustbench_cli.report.sampling import Sample, student_quantile
from robustbench_cli.report.statistics import wilson


def drawn(rng, seeds, images, *, seed_spread=0.0, own=0.8):
    """Right answers (S, N) of seeds that mostly fail on the same images."""
    hard = rng.normal(0, 2.5, images)
    apart = rng.normal(0, own, (seeds, images)) + rng.normal(0, seed_spread, (seeds, 1))
    return (hard + apart > 0).astype(float)


@pytest.mark.parametrize(("seeds", "images"), [(1, 30), (2, 25), (3, 40), (5, 20)])
def test_the_variance_is_that_of_a_bootstrap_over_images_and_seeds(seeds, images):
    rng = np.random.default_rng(seeds)
    values = drawn(rng, seeds, images, seed_spread=0.5)
    means = []
    for _ in range(8000):
        picked = values[:, rng.integers(images, size=images)]
        means.append(picked[rng.integers(seeds, size=max(1, seeds - 1))].mean())
    assert Sample(values).variance == pytest.approx(np.var(means), rel=0.06)


def test_an_interval_does_not_count_seeds_as_images():
    """Seeds that agree on every image say no more than one of them."""
    one = drawn(np.random.default_rng(0), 1, 100)
    copies = Sample(np.repeat(one, 4, axis=0))
    assert copies.interval == pytest.approx(wilson(float(one.sum()), 100))


def test_an_interval_holds_the_truth_as_often_as_it_says():
    """The truth is 1/2; images and seeds are drawn anew each time.  Pooled, 74 % would hold it."""
    rng = np.random.default_rng(1)
    held, pooled = 0, 0
    for _ in range(400):
        values = drawn(rng, 3, 100, seed_spread=0.2)
        low, high = Sample(values).interval
        held += low <= 0.5 <= high
        low, high = wilson(float(values.sum()), values.size)
        pooled += low <= 0.5 <= high
    assert 0.93 <= held / 400 <= 0.985
    assert pooled / 400 < 0.85


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_an_interval_is_never_empty(value):
    low, high = Sample(np.full((3, 50), value)).interval
    assert (low, high) == pytest.approx(wilson(value * 50, 50))
    assert high - low > 0.05


def test_an_interval_does_not_depend_on_the_order_of_images_or_seeds():
    values = drawn(np.random.default_rng(2), 3, 60, seed_spread=0.3)
    shuffled = values[[2, 0, 1]][:, np.random.default_rng(3).permutation(60)]
    assert Sample(shuffled).interval == pytest.approx(Sample(values).interval, abs=1e-12)


def test_few_seeds_that_differ_need_the_quantile_of_student():
    """Two seeds far apart on many images: one degree of freedom, t = 12.7."""
    images = 10_000
    values = np.zeros((2, images))
    values[0, : images // 2], values[1, : images // 4] = 1, 1
    assert student_quantile([Sample(values)]) == pytest.approx(12.7, abs=0.2)
    agreeing = np.zeros((2, images))
    agreeing[:, ::2] = 1
    assert student_quantile([Sample(agreeing)]) == pytest.approx(1.96, abs=0.001)
