"""Margin-based triplets: hand-computed loss, stopping of the attack, inputs of the criterion."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.gradient_ascent import ascend
from robustbench_cli.core.threat import Threat
from robustbench_cli.data import Split
from robustbench_cli.data.bank import Bank
from robustbench_cli.defenses._step import Passes, Step
from robustbench_cli.defenses.mter import MTER
from robustbench_cli.models.taps import embedding

SOURCE = torch.tensor([[1.0, 1.0], [0.0, 1.0]], dtype=torch.float64)
TARGET = torch.tensor([[-1.0, 0.5], [3.0, 1.0]], dtype=torch.float64)
ADV = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)


@pytest.fixture
def step(model, batch):
    """Return a step of a network in evaluation mode, with a bank of other images."""
    x, y = batch
    bank = Bank(Split((torch.rand(8, 1, 8, 8) * 255).byte(), torch.arange(8) % 4, tuple("abcd")))
    noise = Noise(0, torch.arange(len(x)))
    return Step(model=model.eval(), x=x, y=y, threat=Threat("Linf", 0.2), noise=noise, bank=bank)


@pytest.mark.parametrize(
    ("adv", "margin", "expected"),
    [
        # Distances to the own features 0.765367 and 0, to the others' 1.946498 and 1.169421.
        (ADV, 0.2, [0.0, 0.0]),
        (ADV, 1.2, [1.2 + 0.765367 - 1.946498, 1.2 - 1.169421]),
        (SOURCE, 0.2, [0.0, 0.0]),  # margin less the distance of the two: 1.622485, 1.169421
        (SOURCE, 2.0, [2 - 1.622485, 2 - 1.169421]),
    ],
)
def test_the_hinge_by_hand(adv, margin, expected):
    found = MTER(margin=margin).hinge(SOURCE, TARGET, adv)
    assert found.tolist() == pytest.approx([max(0, e) for e in expected], abs=1e-6)


def test_equal_features_leave_the_margin():
    found = MTER().hinge(SOURCE, SOURCE, ADV)
    assert found.tolist() == pytest.approx([0.2, 0.2])


def test_gradients_are_finite_where_an_image_has_not_moved():
    source = SOURCE.clone().requires_grad_()
    MTER(margin=2).hinge(source, TARGET, source).sum().backward()
    assert source.grad.isfinite().all()


def distance(net, x, target):
    return 1 - F.cosine_similarity(embedding(net, x), embedding(net, target))


def test_images_come_nearer_to_another_class_s_and_keep_within_their_walk(step):
    inputs = MTER(steps=5, step=0.25, near=0).crafted(step)
    x, target, adv = inputs["triplets"].chunk(3)
    assert torch.equal(x, step.x)
    assert torch.equal(adv, inputs["adv"])
    assert (inputs["labels"] != step.y).all()
    assert (distance(step.model, adv, target) < distance(step.model, x, target)).all()
    first = MTER(steps=1, step=0.25, near=0).crafted(step)["adv"]
    assert (first - x).abs().max() <= 0.25 * 0.2 + 1e-12


@pytest.mark.parametrize("steps", [1, 10])
def test_on_a_linear_embedding_no_cosine_grows_worse(steps, step):
    """Features W x: the first steps, of eps/50 each, lead downhill."""
    x, target = step.x, step.x.roll(1, 0)
    w = torch.randn(16, 64, dtype=torch.float64)
    climb = replace(MTER().climb, steps=steps)

    def embed(images):
        return images.flatten(1) @ w.T

    adv = ascend(embed, MTER(near=0).pull, embed(target), x, step.threat, step.noise, climb)
    before, after = (1 - F.cosine_similarity(embed(at), embed(target)) for at in (x, adv))
    assert (after <= before).all()
    assert (after < before).any()
    reach = (adv - x).abs().max()
    assert 0 < reach <= steps / 50 * step.threat.eps + 1e-12


def test_an_image_that_is_near_enough_stops(step):
    far = MTER(near=0).crafted(step)
    x, target, _ = far["triplets"].chunk(3)
    near = distance(step.model, x, target)
    threshold = near.median().item() + 1e-6
    adv = MTER(near=threshold).crafted(step)["adv"]
    rested = (adv == x).flatten(1).all(1)
    assert torch.equal(rested, near <= threshold)
    assert 0 < rested.sum() < len(x)
    # One step is at most too far.
    assert (distance(step.model, adv, target)[~rested] < near[~rested]).all()


@pytest.mark.parametrize(
    ("settings", "images"),
    [({}, 2), ({"variant": "paper"}, 2), ({"variant": "code"}, 1.5 * 3), ({"clean": 0.5}, 4)],
)
def test_cross_entropy_sees_clean_images_only(settings, images, step):
    """The paper's mean is over a source and its target; the code divides their sum by one and a
    half times the three images that the batch has for each source.
    """
    objective = MTER(weight=0, steps=2, step=0.5, **settings)
    inputs = dict(objective.crafted(step))
    passes = Passes(step.model, inputs, objective.taps)
    found = objective.loss(step, passes)
    x, target, _ = inputs["triplets"].chunk(3)
    by_hand = F.cross_entropy(step.model(x), step.y, reduction="none")
    by_hand = by_hand + F.cross_entropy(step.model(target), inputs["labels"], reduction="none")
    torch.testing.assert_close(found, by_hand / images)
    assert list(passes.made) == ["triplets"]  # BatchNorm mixes the three
