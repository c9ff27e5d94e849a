"""Randomized ablation: exact combinatorics, the published figures, and soundness by enumeration."""

from itertools import combinations, product
from math import comb

import numpy as np
import pytest
import torch
from torch import nn

from robustbench_cli.certificates import ABSTAINS
from robustbench_cli.certificates.ablation import Ablation
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.models import Classifier
from robustbench_cli.models.masked_input import ComplementInput, MeanInput

MNIST, CIFAR, IMAGENET = 28 * 28, 32 * 32, 224 * 224


@pytest.mark.parametrize(
    ("keep", "pixels", "radii"),
    [(45, MNIST, [8, 10, 11]), (75, CIFAR, [6, 7, 8]), (2000, IMAGENET, [12, 14, 16])],
)
def test_the_radii_are_those_of_the_published_settings(keep, pixels, radii):
    found = Ablation(keep=keep).radii_of(np.array([0.9, 0.95, 0.99]), pixels)
    assert found.tolist() == radii


@pytest.mark.parametrize(("pixels", "keep"), [(16, 3), (16, 1), (16, 16), (9, 5), (784, 45)])
def test_a_radius_is_the_largest_that_the_inequality_allows(pixels, keep):
    bounds = np.linspace(0, 1, 41)
    for bound, radius in zip(bounds, Ablation(keep=keep).radii_of(bounds, pixels), strict=True):

        def holds(r, p=bound):
            return p - 1 + comb(pixels - r, keep) / comb(pixels, keep) > 0.5 + 1e-9

        largest = max((r for r in range(pixels + 1) if holds(r)), default=-1)
        assert radius == largest, (bound, radius)


def test_a_bound_at_the_border_itself_proves_nothing_there():
    """With one of four pixels seen, C(4 - 1, 1) / C(4, 1) is 3/4: p = 3/4 is not more."""
    one = Ablation(keep=1)
    assert one.radii_of(np.array([0.75, np.nextafter(0.75, 1), 0.7501]), 4).tolist() == [0, 0, 1]


def test_wrong_and_undecided_examples_prove_nothing():
    votes = np.array([[[9, 1], [95, 5]], [[1, 9], [95, 5]], [[5, 5], [52, 48]]])
    found = Ablation(n0=10, n=100).certify({"votes": votes, "image": np.array([[1, 28, 28]] * 3)})
    assert found.certified.tolist() == [0, ABSTAINS, ABSTAINS]
    assert found.prediction.tolist() == [0, 0, ABSTAINS]
    assert found.radius.tolist() == [8, 0, 0]  # p is at least 0.898


class Tally(nn.Module):
    """How many bright and how many dark pixels are seen, (B, 2)."""

    def forward(self, x):
        return x.round().flatten(2).sum(2)


def counting_net():
    """Votes by what it sees of an image: more bright pixels than dark ones is class 1."""
    head = nn.Linear(2, 2)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[-1.0, 1.0], [1.0, -1.0]]))
        head.bias.copy_(torch.tensor([-0.5, 0.0]))
    return Classifier(ComplementInput(nn.Identity(), "2 pixels"), Tally(), head)


def exact_shares(net, keep):
    """The share of all sets of pixels on which a net votes for class 1, of every binary image."""
    every = torch.tensor(list(product((0.0, 1.0), repeat=9))).view(-1, 1, 3, 3)
    votes = []
    for each in combinations(range(9), keep):
        seen = torch.zeros(1, 9, dtype=torch.bool)
        seen[0, list(each)] = True
        votes.append(net(net.normalize.masked(every, seen.view(1, 1, 3, 3))).argmax(1))
    return every.flatten(1), torch.stack(votes).double().mean(0)


IMAGES = torch.tensor(
    [[1, 1, 1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1, 0, 0, 0.0]]
).view(-1, 1, 3, 3)


@pytest.mark.parametrize("keep", [1, 2])
def test_no_certificate_is_above_the_truth(keep, subject_of, proofs):
    """Every change of every set of pixels is tried on the smoothed classifier, computed exactly."""
    net = counting_net()
    found = proofs(Ablation(keep=keep, n0=100, n=4000, alpha=0.001), subject_of(net, IMAGES))
    every, shares = exact_shares(net, keep)
    assert found["certified"].tolist()[:2] == [1, 1]
    for x, label, radius in zip(IMAGES, found["certified"], found["radius"], strict=True):
        lost = (shares <= 0.5) if label == 1 else (shares >= 0.5)
        truth = int((every != x.flatten()).sum(1)[lost].min())
        assert label == ABSTAINS or radius < truth
    assert found["radius"].tolist()[0] == {1: 4, 2: 2}[keep]


def test_every_pixel_is_seen_as_often_and_exactly_as_many():
    x = torch.zeros(3000, 2, 4, 5)
    seen = Ablation(keep=7).seen(x, Noise(0, torch.arange(3000)), torch.zeros(3000))
    assert seen.shape == (3000, 1, 4, 5)
    assert (seen.flatten(1).sum(1) == 7).all()
    share = seen.float().mean(0)
    assert float((share - 7 / 20).abs().max()) < 4 * (0.35 * 0.65 / 3000) ** 0.5
    pairs = (seen[:, 0, 0, 0] & seen[:, 0, 3, 4]).float().mean()
    assert float(pairs) == pytest.approx(7 * 6 / (20 * 19), abs=0.03)


def test_hidden_pixels_leave_no_trace():
    layer = ComplementInput(nn.Identity(), "2 pixels")
    x, seen = torch.rand(2, 3, 4, 4), torch.rand(2, 1, 4, 4) < 0.5
    shown = layer(layer.masked(x, seen))
    other = layer.masked(torch.where(seen, x, torch.rand_like(x)), seen)
    assert torch.equal(shown, layer(other))
    assert torch.equal(shown, torch.cat([x, 1 - x], 1) * seen)
    assert torch.equal(layer(x), torch.cat([x, 1 - x], 1))
    mean = MeanInput(nn.Identity(), "2 pixels", (0.1, 0.2, 0.3))
    assert torch.equal(mean(mean.masked(x, seen)), mean.masked(x, seen))
    assert float(mean.masked(x, ~seen)[:, 1][seen[:, 0]].unique()) == pytest.approx(0.2)


@pytest.mark.parametrize("batch", [1, 13, 500])
def test_votes_depend_neither_on_the_batch_nor_on_the_order(batch, subject_of, proofs):
    net, certificate = Plain(), Ablation(keep=3, n0=20, n=60, null=0.5)
    usual = proofs(certificate, subject_of(net, IMAGES))
    for name, values in proofs(certificate, subject_of(net, IMAGES, batch=batch)).items():
        assert np.array_equal(values, usual[name]), name
    rows = torch.tensor([2, 0])
    for part in certificate.evidence(subject_of(net, IMAGES), rows):
        for row, votes in zip(part.rows, part.arrays["votes"], strict=True):
            assert np.array_equal(votes, usual["votes"][row])
    other = proofs(certificate, subject_of(net, IMAGES, seed=1))["votes"]
    assert not np.array_equal(other, usual["votes"])


class Plain(nn.Module):
    """A model that knows of no hidden pixels."""

    def forward(self, x):
        score = x.flatten(1).mean(1) - 0.6
        return torch.stack([-score, score], 1)


def test_a_plain_model_needs_a_value_for_hidden_pixels(subject_of):
    subject = subject_of(Plain(), IMAGES)
    with pytest.raises(UserError, match=r"not trained on such.*ablation:null=0\.5"):
        Ablation(keep=3).check(subject)
    Ablation(keep=3, null=0.0).check(subject)
    x = torch.ones(4, 1, 3, 3)
    shown = Ablation(keep=3, null=0.25).copies(
        Plain(), x, Noise(0, torch.arange(4)), torch.zeros(4, dtype=torch.long)
    )
    assert shown.flatten(1).sum(1).tolist() == [3 + 6 * 0.25] * 4


def test_more_pixels_than_there_are_cannot_be_kept(subject_of):
    with pytest.raises(UserError, match="keep=45: images have 9 pixels"):
        Ablation(null=0.0).check(subject_of(Plain(), IMAGES))
