"""What votes prove: against exact binomial sums and the published figures."""

from math import comb
from statistics import NormalDist

import numpy as np
import pytest
import torch

from robustbench_cli.certificates import ABSTAINS, CERTIFICATES
from robustbench_cli.certificates.smoothing import Smoothing
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Spec

IMAGE = (1, 2, 2)


def at_least(k, n, p):
    """The probability of k or more successes in n, summed term by term."""
    return sum(comb(n, j) * p**j * (1 - p) ** (n - j) for j in range(k, n + 1))


def certified(smoothing, *examples):
    """What is proven of examples, each given as its votes in both polls."""
    return smoothing.certify({"votes": np.array(examples)})


def test_unanimous_votes_give_the_published_figures():
    smoothing = Smoothing()
    assert smoothing.lower_bound(np.array(10_000)) == pytest.approx(0.999309, abs=5e-7)
    assert smoothing.max_radius(IMAGE) == pytest.approx(0.79964, abs=5e-6)
    (radius,) = certified(smoothing, [[100, 0], [10_000, 0]]).radius
    assert radius == smoothing.max_radius(IMAGE)


@pytest.mark.parametrize("k", [1, 2, 37, 99, 100])
def test_the_bound_is_where_so_many_votes_become_unlikely(k):
    smoothing = Smoothing(n=100, alpha=0.01)
    bound = float(smoothing.lower_bound(np.array(k)))
    assert at_least(k, 100, bound) == pytest.approx(0.01, rel=1e-6)


@pytest.mark.parametrize("p", [0.02, 0.3, 0.5, 0.77, 0.94])
def test_the_bound_is_above_the_truth_in_a_share_alpha_of_all_cases_at_most(p):
    smoothing = Smoothing(n=60, alpha=0.05)
    too_high = smoothing.lower_bound(np.arange(61)) > p
    pmf = np.array([comb(60, k) * p**k * (1 - p) ** (60 - k) for k in range(61)])
    assert 0 < pmf[too_high].sum() <= 0.05


def test_no_votes_prove_nothing():
    assert Smoothing().lower_bound(np.array(0)) == 0


def test_the_radius_is_sigma_times_the_quantile_of_the_bound():
    smoothing = Smoothing(sigma=0.5, n=100, alpha=0.01)
    found = certified(smoothing, [[0, 9, 1], [3, 90, 7]])
    bound = float(smoothing.lower_bound(np.array(90)))
    assert found.certified.tolist() == [1]
    assert found.radius[0] == pytest.approx(0.5 * NormalDist().inv_cdf(bound), rel=1e-9)


def test_nothing_is_certified_where_the_bound_is_below_one_half():
    found = certified(
        Smoothing(n0=10, n=100, alpha=0.001),
        [[5, 5], [50, 50]],  # on the boundary
        [[9, 1], [60, 40]],  # P(X >= 60) = 0.028 with equal chances
        [[9, 1], [70, 30]],
        [[9, 1], [30, 70]],  # the first poll chose the other class
    )
    assert found.certified.tolist() == [ABSTAINS, ABSTAINS, 0, ABSTAINS]
    assert (found.radius > 0).tolist() == [False, False, True, False]
    assert (found.confidence >= 0.5).tolist() == [False, False, True, False]
    assert found.prediction.tolist() == [ABSTAINS, ABSTAINS, 0, 1]


@pytest.mark.parametrize(("alpha", "predicted"), [(0.021, ABSTAINS), (0.022, 2)])
def test_predict_is_a_two_sided_test_between_the_first_two_classes(alpha, predicted):
    # 9 against 1 has p = 2 (10 + 1) / 1024 = 0.0215, whatever the others have.
    found = certified(Smoothing(n=11, alpha=alpha), [[0, 0, 100], [1, 1, 9]])
    assert found.prediction.tolist() == [predicted]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("smoothing:sigma=0", "'sigma': Input should be greater than 0"),
        ("smoothing:sigma=-0.25", "'sigma': Input should be greater than 0"),
        ("smoothing:sigma=nan", "'sigma'"),
        ("smoothing:alpha=0", "'alpha': Input should be greater than 0"),
        ("smoothing:alpha=1", "'alpha': Input should be less than 1"),
        ("smoothing:n=0", "'n': Input should be greater than or equal to 1"),
        ("smoothing:n0=0", "'n0': Input should be greater than or equal to 1"),
        ("smoothing:sgima=1", "did you mean 'sigma'"),
        ("smooth", "did you mean 'smoothing'"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(text, message):
    with pytest.raises(UserError, match=message):
        CERTIFICATES.build(Spec.parse(text))


def test_copies_are_gaussian_and_leave_the_box():
    x = torch.zeros(2, 1, 50, 50)
    copy = torch.tensor([0, 7])
    noise = Noise(0, torch.tensor([3, 4])).at(copy)
    model = torch.nn.Identity()
    copies = Smoothing(sigma=0.5).copies(model, x, noise, copy)
    assert float(copies.std()) == pytest.approx(0.5, rel=0.03)
    assert float(copies.mean()) == pytest.approx(0, abs=0.03)
    assert 0.45 < float((copies < 0).float().mean()) < 0.55
    # A draw belongs to an example and a copy of it, whatever shares the batch.
    same = Noise(0, torch.tensor([4])).at(copy[1:])
    alone = Smoothing(sigma=0.5).copies(model, x[:1], same, copy[1:])
    assert torch.equal(alone[0], copies[1])
    assert not torch.equal(copies[0], copies[1])
