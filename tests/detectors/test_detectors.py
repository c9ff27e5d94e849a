"""Every detector's contract, and each by its definition."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.distributions import MultivariateNormal

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.registry import Spec
from robustbench_cli.detectors import DETECTORS, ModelOutputs
from robustbench_cli.evaluation.detect import auroc

CENTERS = torch.tensor([[4.0, 0.0], [-4.0, 0.0], [0.0, 6.0]])
SPREAD = torch.tensor([[1.0, 0.6], [0.6, 1.0]])


def built(text):
    return DETECTORS.build(Spec.parse(text))


def toy(count=600, seed=0):
    """Three Gaussian classes with one covariance; the model answers the nearest center."""
    draw = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % 3
    noise = torch.randn(count, 2, generator=draw) @ torch.linalg.cholesky(SPREAD).T
    return answered(CENTERS[y] + noise), y


def answered(features):
    return ModelOutputs(features, -torch.cdist(features, CENTERS).square() / 2)


@pytest.fixture(params=["gaussian", "gaussian:score=posterior", "knn", "knn3", "softmax"])
def detector(request):
    return built(request.param)


def test_suspicion_is_a_finite_number_for_each_answer_by_itself(detector):
    seen, y = toy()
    known = detector.fit(seen, y)
    assert all(isinstance(value, torch.Tensor) for value in known.values())
    found = detector.suspicion(seen, known)
    assert found.shape == (600,)
    assert found.isfinite().all()
    part = detector.suspicion(ModelOutputs(seen.features[7:20], seen.logits[7:20]), known)
    torch.testing.assert_close(part, found[7:20])


def test_errors_between_the_classes_are_told_from_right_answers(detector):
    """Images that were moved to the other side of a boundary: near it, and far from every class."""
    seen, y = toy()
    known = detector.fit(seen, y)
    between = (CENTERS[[0, 1, 2]] + CENTERS[[1, 2, 0]]) / 2
    moved = answered(between.repeat(20, 1) + 0.2 * torch.randn(60, 2))
    suspicion = torch.cat([detector.suspicion(each, known) for each in (seen, moved)])
    wrong = torch.cat([seen.prediction != y, torch.ones(60, dtype=torch.bool)])
    least = 0.75 if DETECTORS.name_of(detector) == "knn" else 0.95  # few numbers, many ties
    assert auroc(suspicion.numpy(), wrong.numpy()) > least


def test_a_confident_error_far_from_all_data_is_seen_by_density_only():
    seen, y = toy()
    far = answered(torch.tensor([[40.0, 0.0], [0.0, 60.0]]))
    typical = {}
    for name in ("gaussian", "gaussian:score=posterior", "softmax"):
        fitted = built(name)
        known = fitted.fit(seen, y)
        usual = fitted.suspicion(seen, known).median()
        typical[name] = (fitted.suspicion(far, known) > usual).all().item()
    assert typical == {"gaussian": True, "gaussian:score=posterior": False, "softmax": False}


def test_the_density_is_that_of_the_textbook():
    """Against torch.distributions, with means and covariance computed by hand."""
    seen, y = toy(count=90)
    x = seen.features.double()
    means = torch.stack([x[y == k].mean(0) for k in range(3)])
    rest = x - means[y]
    covariance = rest.T @ rest / 90 + 1e-3 * rest.square().mean() * torch.eye(2).double()
    textbook = MultivariateNormal(means, covariance).log_prob(x[:, None])
    density = built("gaussian")
    found = density.suspicion(seen, density.fit(seen, y))
    torch.testing.assert_close(found, -textbook.amax(1))
    posterior = built("gaussian:score=posterior")
    found = posterior.suspicion(seen, posterior.fit(seen, y))
    shares = (textbook + math.log(1 / 3)).log_softmax(1)
    torch.testing.assert_close(found, -shares.amax(1))


def test_shares_of_classes_count_in_the_posterior():
    seen, y = toy(count=90)
    keep = torch.cat([(y == 0).nonzero()[:4, 0], (y != 0).nonzero()[:, 0]])
    part, labels = ModelOutputs(*(each[keep] for each in seen)), y[keep]
    known = built("gaussian").fit(part, labels)
    torch.testing.assert_close(known["log_shares"].exp(), torch.tensor([4.0, 30, 30]).double() / 64)


def test_a_class_without_images_and_features_that_never_vary_do_no_harm():
    seen, y = toy(count=90)
    features = torch.cat([seen.features, torch.zeros(90, 3)], 1)
    some = y != 1
    part = ModelOutputs(features[some], seen.logits[some])
    for text in ("gaussian", "gaussian:score=posterior"):
        fitted = built(text)
        found = fitted.suspicion(ModelOutputs(features, seen.logits), fitted.fit(part, y[some]))
        assert found.isfinite().all()
    # Nothing is near the class that was never seen: not even the origin, where its mean would be.
    density = built("gaussian")
    known = density.fit(part, y[some])
    origin = ModelOutputs(torch.zeros(1, 5), torch.zeros(1, 3))
    theirs = density.suspicion(ModelOutputs(features[y == 0], seen.logits[y == 0]), known)
    assert density.suspicion(origin, known) > theirs.max()


def test_neighbours_are_counted_one_by_one():
    seen, y = toy(count=90)
    knn = built("knn:k=7")
    known = knn.fit(seen, y)
    found = knn.suspicion(seen, known)
    for i in range(0, 90, 13):
        alike = F.cosine_similarity(seen.features[i : i + 1], seen.features)
        nearest = y[alike.argsort(descending=True)[:7]]
        assert found[i].item() == pytest.approx(
            (nearest != seen.prediction[i]).double().mean().item()
        )


def test_more_neighbours_than_images_are_all_of_them():
    seen, y = toy(count=9)
    knn = built("knn:k=500")
    assert knn.suspicion(seen, knn.fit(seen, y)).tolist() == pytest.approx([2 / 3] * 9)


def test_softmax_has_the_order_of_the_largest_share_and_never_saturates():
    logits = torch.randn(50, 4) * 3
    found = built("softmax").suspicion(ModelOutputs(logits, logits), {})
    assert torch.equal(found.argsort(), logits.double().softmax(1).amax(1).argsort(descending=True))
    sure = torch.tensor([[100.0, 0.0, 0.0], [200.0, 0.0, 0.0]])
    first, second = built("softmax").suspicion(ModelOutputs(sure, sure), {}).tolist()
    assert first > second  # both shares are one in float64


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gausian", "unknown detector 'gausian'; did you mean 'gaussian'"),
        ("gaussian:ridge=0", "'ridge': Input should be greater than 0"),
        ("gaussian:score=best", "'score'.*'density' or 'posterior'"),
        ("knn:k=0", "'k': Input should be greater than 0"),
        ("softmax:k=1", "no parameter 'k'"),
    ],
)
def test_mistakes_are_named(text, message):
    with pytest.raises(UserError, match=message):
        built(text)
