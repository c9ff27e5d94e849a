"""Verdicts on models that reject, by hand; a detector and a model as one."""

import math

import pytest
import torch
from torch import nn

from robustbench_cli.attacks import ATTACKS
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.losses import margin, merge_rejection
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.data import DATASETS
from robustbench_cli.detectors import DETECTORS
from robustbench_cli.evaluation.batch_attack import attack_batch
from robustbench_cli.evaluation.detect import flagged_at_most, seen
from robustbench_cli.evaluation.detecting_model import with_detector
from robustbench_cli.evaluation.model_check import check_model
from robustbench_cli.evaluation.rewritten_models import rewritten_search_model
from robustbench_cli.evaluation.tensors import Tensors
from robustbench_cli.evaluation.verifier import Verifier, unchanged_model
from robustbench_cli.models.rejecting import ModelWithRejectClass
from robustbench_cli.models.taps import embedding

LOGITS = torch.tensor(
    [
        [3.0, 1.0, 0.0, 2.0],  # right
        [2.0, 1.0, 0.0, 3.0],  # rejected, the true class leads the others
        [1.0, 2.0, 0.0, 3.0],  # rejected, a wrong class leads the others
        [1.0, 3.0, 0.0, 2.0],  # wrong, and not rejected
    ]
)
"""Of three classes and, last, the rejection; the true class is 0."""
Y = torch.zeros(4, dtype=torch.long)


class Table(nn.Module):
    """Returns given logits, the rejection's at any place; reads the image to be differentiable."""

    def __init__(self, logits):
        super().__init__()
        self.register_buffer("answers", logits)

    def forward(self, x):
        return self.answers[: len(x)] + 0 * x.flatten(1).sum(1, keepdim=True)


def test_merged_logits_by_hand():
    merged = merge_rejection(LOGITS, Y)
    assert merged.tolist() == [[3, 1, 0], [3, 1, 0], [3, 2, 0], [2, 3, 0]]
    assert margin(merged, Y).tolist() == [-2, -2, -1, 1]
    leads = LOGITS.clone().requires_grad_()
    margin(merge_rejection(leads, Y), Y).sum().backward()
    # What stands in the way is lowered: the true class, or the rejection.
    assert leads.grad.tolist() == [[-1, 1, 0, 0], [0, 1, 0, -1], [0, 1, 0, -1], [0, 1, 0, -1]]


def test_logits_that_do_not_heed_the_rejection_have_the_same_values():
    leads, heeded = LOGITS.clone().requires_grad_(), torch.tensor([True, False, True, False])
    merged = merge_rejection(leads, Y, heeded)
    assert torch.equal(merged, merge_rejection(LOGITS, Y))
    margin(merged, Y).sum().backward()
    assert leads.grad.tolist() == [[-1, 1, 0, 0], [-1, 1, 0, 0], [0, 1, 0, -1], [-1, 1, 0, 0]]


@pytest.mark.parametrize("index", range(4))
def test_verdicts_by_hand_wherever_the_reject_class_is(index):
    places = [k for k in range(4) if k != index]
    scattered = torch.empty_like(LOGITS)
    scattered[:, places], scattered[:, index] = LOGITS[:, :3], LOGITS[:, 3]
    model, x = ModelWithRejectClass(Table(scattered), 3, index), torch.rand(4, 1, 2, 2)
    verifier = Verifier(model)
    found = verifier.verdict(x, x, Y, Threat("Linf", 0.1))
    assert found.prediction.tolist() == [0, 3, 3, 1]
    assert found.broken.tolist() == [False, False, False, True]
    assert found.share.tolist() == [1, 1, 1, 0]
    assert found.rejected.tolist() == [0, 1, 1, 0]
    assert found.margin.tolist() == [-2, -2, -1, 1]
    assert verifier.broken(x, Y).tolist() == [False, False, False, True]
    clean = found.of_clean_images
    assert clean.share.tolist() == [1, 0, 0, 0]  # right and not rejected
    assert clean.broken.tolist() == [False, True, True, True]
    check_model(model, x, 3)


def test_a_model_without_rejection_is_judged_as_before():
    x = torch.rand(4, 1, 2, 2)
    found = Verifier(Table(LOGITS)).verdict(x, x, Y, Threat("Linf", 0.1))
    assert found.rejected is None
    assert found.broken.tolist() == [False, True, True, True]
    assert found.of_clean_images is found


def test_a_randomised_model_stands_at_the_draws_that_are_right_or_rejected():
    class Coin(nn.Module):
        """Right at every fourth draw, rejected at two of them, wrong at the fourth."""

        def __init__(self):
            super().__init__()
            self.calls = 0

        def forward(self, x):
            self.calls += 1
            row = LOGITS[[0, 1, 2, 3]][self.calls % 4]
            return row.repeat(len(x), 1) + 0 * x.flatten(1).sum(1, keepdim=True)

    x, y = torch.rand(2, 1, 2, 2), torch.zeros(2, dtype=torch.long)
    verifier = Verifier(ModelWithRejectClass(Coin(), 3, 3), random=True)
    found = verifier.verdict(x, x, y, Threat("Linf", 0.1))
    assert found.share.tolist() == pytest.approx([0.75, 0.75])
    assert found.rejected.tolist() == [0.5, 0.5]
    assert found.prediction.tolist() == [3, 3]
    assert not found.broken.any()
    assert found.of_clean_images.share.tolist() == pytest.approx([0.25, 0.25])


@pytest.mark.parametrize(("fpr", "n", "count"), [(0.05, 20, 1), (0.05, 39, 1), (0.1, 30, 3)])
def test_so_many_held_out_images_are_flagged(fpr, n, count):
    assert flagged_at_most(fpr, n) == count
    assert flagged_at_most(0.99, 3) == 2


@pytest.fixture(scope="module", params=["softmax", "gaussian", "gaussian:score=posterior", "knn9"])
def guarded(request, digits_model):
    """The digits net with a detector fitted on some images, its threshold set on others."""
    net = digits_model[0]
    detector = DETECTORS.build(Spec.parse(request.param))
    train, test = (DATASETS.build(Spec("digits")).load(name, None) for name in ("train", "test"))
    fit = Tensors(train.images(slice(None)), train.y)
    held_out, rest = (
        Tensors(test.images(rows), test.y[rows]) for rows in (slice(200, 400), slice(400, 460))
    )
    with unchanged_model(net):
        known = detector.fit(seen(net, fit, 64), fit.y)
        model = with_detector(net, detector, known, held_out, 0.1, 64)
        scores = detector.suspicion(seen(net, held_out, 64), known)
    return model.eval(), held_out, scores, rest


def test_an_image_is_rejected_where_its_suspicion_is_above_the_threshold(guarded):
    model, held_out, scores, _ = guarded
    with torch.no_grad():
        logits = model(held_out.x)
    rejected = logits.argmax(1) == 10
    assert torch.equal(rejected, scores.double() > model.threshold)
    assert int(rejected.sum()) == model.flagged <= 20
    highest = scores[~rejected].max()
    assert (scores >= highest).sum() > 20  # a lower threshold flags more than 10 % of 200
    assert torch.equal(logits[:, :10], model.model(held_out.x))
    torch.testing.assert_close(embedding(model, held_out.x), embedding(model.model, held_out.x))


def test_attacks_break_a_detector_and_its_model_at_once(guarded):
    """Images that fool the model alone are caught more often than those that aim at both."""
    model, _, _, data = guarded
    with torch.no_grad():
        right = model(data.x).argmax(1) == data.y
    x, y = data.x[right], data.y[right]
    threat, attack = Threat("Linf", 0.3), ATTACKS.build(Spec.parse("pgd40:climbs=margin"))
    noise = Noise(0, torch.arange(len(y)))
    plain, aiming = (
        attack_batch(each, x, y, attack, threat, noise) for each in (model.model, model)
    )
    verifier = Verifier(model)
    with unchanged_model(model):
        assert torch.equal(verifier.broken(aiming.x, y), aiming.broken)
        by_chance = verifier.broken(plain.x, y)
    assert aiming.broken.float().mean() > by_chance.float().mean()
    if model.differentiable:
        assert aiming.broken.float().mean() > 0.5


def test_a_random_search_gets_past_the_boundary_where_images_are_flagged(guarded, monkeypatch):
    model, _, _, data = guarded
    with torch.no_grad():
        right = model(data.x).argmax(1) == data.y
        logits = model(data.x)
    x, y = data.x[right], data.y[right]
    ranked, merged = (show(logits, data.y) for show in (model.ranked, model.merged))
    assert torch.equal(ranked.argmax(1) == data.y, merged.argmax(1) == data.y)

    def found():
        attack, noise = ATTACKS.build(Spec.parse("square300")), Noise(0, torch.arange(len(y)))
        return attack_batch(model, x, y, attack, Threat("Linf", 0.2), noise).broken.float().mean()

    assert bool(model.behind) == (DETECTORS.name_of(model.detector) != "gaussian")
    if not model.behind:
        assert torch.equal(ranked, merged)
        return
    with_ranks = found()
    monkeypatch.setattr(type(model), "ranked", type(model).merged)
    assert with_ranks > found()


def test_a_faster_model_rejects_as_the_model_does(guarded):
    model, held_out, _, _ = guarded
    with unchanged_model(model):
        search, _ = rewritten_search_model(model, held_out.x[:32])
        assert search.rejection is model
        torch.testing.assert_close(
            search.model(held_out.x[:32]), model(held_out.x[:32]), rtol=0, atol=0.2
        )


def test_only_knn_lets_no_gradient_through(guarded):
    model = guarded[0]
    name = DETECTORS.name_of(model.detector)
    assert model.differentiable == (name != "knn")
    assert math.isfinite(model.scale)
    assert model.scale > 0
