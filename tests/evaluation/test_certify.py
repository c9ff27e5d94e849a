"""Votes, against a classifier whose smoothed version is known in closed form."""

import numpy as np
import pytest
import torch
from torch import nn

from robustbench_cli.certificates import ABSTAINS, ProofSubject
from robustbench_cli.certificates.smoothing import Smoothing
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.threat import Threat
from robustbench_cli.evaluation.certify import Proofs
from robustbench_cli.evaluation.tensors import Tensors

WEIGHT = torch.tensor([0.6, -0.2, 0.3, 0.5])


class Plane(nn.Module):
    """Class 1 on one side of a plane, class 0 on the other."""

    def forward(self, x):
        score = (x - 0.5).flatten(1) @ WEIGHT.to(x)
        return torch.stack([-score, score], 1)


def points(distances):
    """Images at these signed distances from the plane."""
    away = WEIGHT / WEIGHT.norm()
    return (0.5 + distances[:, None] * away).view(-1, 1, 2, 2)


def subject(x, model=None, batch=512, seed=0):
    ids = torch.arange(len(x))
    data = Tensors(x, torch.zeros(len(x), dtype=torch.long))
    noise = Noise(seed, ids)
    return ProofSubject(
        model=model or Plane(), data=data, noise=noise, classes=2, threat=Threat("L2"), batch=batch
    )


def proofs(smoothing, x, **options):
    found = Proofs.empty(smoothing, subject(x), len(x))
    for evidence in smoothing.evidence(subject(x, **options), torch.arange(len(x))):
        found.put(evidence, smoothing)
    assert found.done.all()
    return found.arrays


DISTANCES = torch.tensor([-0.4, -0.25, -0.1, -0.03, 0.03, 0.1, 0.25, 0.4])


def test_the_certified_radius_is_below_the_true_one_and_approaches_it():
    gaps = []
    for n in (500, 5_000, 50_000):
        found = proofs(Smoothing(n=n), points(DISTANCES), batch=4096)
        distances = DISTANCES.numpy()
        right = found["certified"] == (distances > 0)
        # The plane is as far from the smoothed classifier's boundary as from the model's own.
        gap = np.abs(distances) - found["radius"]
        assert (gap > 0).all(), n
        assert right[np.abs(distances) >= 0.1].all(), n
        gaps.append(gap.mean())
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[2] < 0.01


def test_more_noise_reaches_further_where_the_distance_allows_it():
    near, far = (proofs(Smoothing(sigma=s, n=5_000), points(torch.tensor([1.5]))) for s in (0.1, 1))
    assert near["radius"][0] == pytest.approx(Smoothing(sigma=0.1, n=5_000).max_radius((1, 2, 2)))
    assert 1.2 < far["radius"][0] < 1.5


def test_an_example_on_the_boundary_has_no_class():
    found = proofs(Smoothing(n=2_000), points(torch.zeros(4)))
    assert (found["certified"] == ABSTAINS).all()
    assert (found["prediction"] == ABSTAINS).all()
    assert not found["radius"].any()


@pytest.mark.parametrize("batch", [1, 7, 60, 61, 1000])
def test_votes_do_not_depend_on_the_batch(batch):
    smoothing, x = Smoothing(n0=11, n=50), points(DISTANCES)
    usual = proofs(smoothing, x, batch=128)
    assert (usual["votes"].sum(2) == [11, 50]).all()
    for name, values in proofs(smoothing, x, batch=batch).items():
        assert np.array_equal(values, usual[name]), name


def test_votes_do_not_depend_on_the_other_examples_but_on_the_seed():
    smoothing, x = Smoothing(n0=11, n=50), points(DISTANCES)
    usual = proofs(smoothing, x)["votes"]
    rows = torch.tensor([5, 2])
    parts = smoothing.evidence(subject(x), rows)
    found = [pair for part in parts for pair in zip(part.rows, part.arrays["votes"], strict=True)]
    assert [int(row) for row, _ in found] == [5, 2]
    assert all(np.array_equal(votes, usual[row]) for row, votes in found)
    assert not np.array_equal(proofs(smoothing, x, seed=1)["votes"], usual)


def test_examples_are_told_as_soon_as_they_are_complete():
    smoothing, x = Smoothing(n0=10, n=50), points(DISTANCES)
    parts = smoothing.evidence(subject(x, batch=150), torch.arange(8))
    assert [part.rows.tolist() for part in parts] == [[0, 1], [2, 3, 4], [5, 6], [7]]


def test_a_model_without_an_answer_has_no_vote():
    class Silent(Plane):
        def forward(self, x):
            logits = super().forward(x)
            return torch.where(x.flatten(1)[:, :1] > 1.2, torch.nan, logits)

    with pytest.raises(UserError, match="NaN or infinite logits"):
        proofs(Smoothing(n=2_000), points(DISTANCES), model=Silent())


def test_no_gradients_are_kept_and_weights_stay():
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    before = net[1].weight.detach().clone()
    seen = []
    net.register_forward_hook(lambda _module, _x, y: seen.append(y.requires_grad))
    proofs(Smoothing(n0=3, n=9), points(DISTANCES), model=net)
    assert seen
    assert not any(seen)
    assert torch.equal(net[1].weight, before)
