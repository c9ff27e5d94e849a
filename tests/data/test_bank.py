"""Random training images by class."""

import torch

from robustbench_cli.core.example_rng import Noise
from robustbench_cli.data import Split
from robustbench_cli.data.bank import Bank

Y = torch.tensor([2, 0, 1, 1, 0, 2, 2, 1, 0, 0])


def bank():
    x = torch.arange(10, dtype=torch.uint8).view(-1, 1, 1, 1)
    return Bank(Split(x, Y, ("a", "b", "c", "none")))


def test_same_and_other_have_the_right_classes_and_reach_every_image():
    known = bank()
    y = torch.tensor([0, 1, 2]).repeat(200)
    noise = Noise(0, torch.arange(600))
    same, other = known.same(y, noise), known.other(y, noise)
    assert (known.labels(same) == y).all()
    assert (known.labels(other) != y).all()
    for k in range(3):
        assert set(same[y == k].tolist()) == set((k == Y).nonzero().squeeze(1).tolist())
        assert set(other[y == k].tolist()) == set((k != Y).nonzero().squeeze(1).tolist())
    assert torch.equal(known.images(same)[:, 0, 0, 0], same / 255)


def test_draws_are_keyed_by_example():
    known, ids = bank(), torch.tensor([7, 3, 11])
    y = torch.tensor([0, 1, 2])
    whole = known.other(y, Noise(5, ids))
    assert torch.equal(known.other(y[1:], Noise(5, ids[1:])), whole[1:])
    assert known.any(4, 1, 2).tolist() == known.any(4, 1, 2).tolist()
    assert len(set(known.any(4, 1, 2).tolist())) == 4
