"""Votes of all bands and blocks: what a lead proves, against every patch that there is."""

from itertools import product

import numpy as np
import pytest
import torch
from torch import nn

from robustbench_cli.certificates import ABSTAINS
from robustbench_cli.certificates.derandomized import Derandomized
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.image_parts import Pieces
from robustbench_cli.models import Classifier
from robustbench_cli.models.masked_input import ComplementInput

MNIST = np.array([[1, 28, 28]])
PIECES = [("column", 1), ("column", 2), ("row", 2), ("block", 2), ("block", 3)]


def certified(votes, image=MNIST, **settings):
    """What these votes (K) prove."""
    return Derandomized(**settings).certify({"votes": np.array([[votes]]), "image": image})


@pytest.mark.parametrize(
    ("votes", "label", "radius"),
    [
        ([0, 17, 0], 1, 5),  # more than 2 (5 + 4 - 1) = 16 ahead of the class before it
        ([0, 16, 0], 1, 4),  # a tie would go to class 0
        ([16, 0, 0], 0, 5),  # and here to the class itself
        ([9, 28, 11], 1, 5),
        ([11, 28, 9], 1, 5),
        ([3, 3, 1], 0, 0),
        ([0, 3, 3], 1, 0),
        ([0, 0, 0], ABSTAINS, 0),
    ],
)
def test_a_lead_of_two_votes_for_each_band_that_a_patch_meets(votes, label, radius):
    found = certified(votes)
    assert (found.certified[0], found.prediction[0], found.radius[0]) == (label, label, radius)


def test_blocks_are_met_by_the_square_of_as_many():
    lead = 2 * (5 + 4 - 1) ** 2
    assert certified([lead, 0], piece="block").radius[0] == 5
    assert certified([lead - 1, 0], piece="block").radius[0] == 4
    assert certified([0, lead], piece="block").radius[0] == 4


@pytest.mark.parametrize(("kind", "width"), PIECES)
@pytest.mark.parametrize("size", [(4, 5), (6, 6)])
def test_pieces_cover_every_pixel_as_often_and_patches_meet_at_most_so_many(kind, width, size):
    pieces = Pieces(kind, width, size)
    every = pieces.at(torch.arange(pieces.count))
    assert every.shape == (pieces.count, 1, *size)
    assert len({tuple(each.flatten().tolist()) for each in every}) == pieces.count
    area = {"column": width * size[0], "row": width * size[1], "block": width**2}[kind]
    assert (every.flatten(1).sum(1) == area).all()
    assert len(every.sum(0).unique()) == 1
    for side in range(1, min(size) + 1):
        met = []
        for top, left in product(range(size[0] - side + 1), range(size[1] - side + 1)):
            patch = every[:, :, top : top + side, left : left + side]
            met.append(int(patch.flatten(1).any(1).sum()))
        assert max(met) == pieces.touched(side)
    assert pieces.touched(0) == 0


class Brightness(nn.Module):
    """Mean brightness and darkness of what is seen, (B, 2)."""

    def forward(self, x):
        total = x.flatten(2).sum(2)
        return total / total.sum(1, keepdim=True)


def three_way_net():
    """A base net for dark, middling and bright parts of images: classes 0, 1, 2."""
    net = Classifier(ComplementInput(nn.Identity(), "parts"), Brightness(), nn.Linear(2, 3))
    with torch.no_grad():
        net.head.weight.copy_(torch.tensor([[0.0, 9.0], [3.0, 3.0], [9.0, 0.0]]))
        net.head.bias.copy_(torch.tensor([0.0, 2.0, 0.0]))
    return net.eval()


@pytest.mark.parametrize(("kind", "width"), [("column", 1), ("row", 1), ("block", 1)])
def test_no_patch_changes_a_certified_class(kind, width, subject_of, proofs):
    """Every patch of black and white pixels at every place, on images of 4 x 4."""
    net = three_way_net()
    certificate = Derandomized(piece=kind, width=width, threshold=0.45)
    x = (torch.linspace(0, 1, 24).view(-1, 1, 1, 1) + 0.3 * torch.randn(24, 1, 4, 4)).clamp(0, 1)
    found = proofs(certificate, subject_of(net, x, classes=3))
    assert (found["radius"] > 0).sum() >= 4
    broken_just_outside = 0
    for row, radius in enumerate(found["radius"].astype(int)):
        for side in (1, 2):
            values = torch.tensor(list(product((0.0, 1.0), repeat=side**2)))
            changed = []
            for top, left in product(range(5 - side), repeat=2):
                copies = x[row].repeat(len(values), 1, 1, 1)
                copies[:, 0, top : top + side, left : left + side] = values.view(-1, side, side)
                changed.append(copies)
            after = proofs(certificate, subject_of(net, torch.cat(changed), 512, classes=3))
            same = (after["prediction"] == found["prediction"][row]).all()
            if side <= radius:
                assert same, (row, side)
            broken_just_outside += int(not same)
    assert broken_just_outside  # the patches can break what is not certified


@pytest.mark.parametrize("batch", [1, 5, 1000])
def test_it_depends_neither_on_the_batch_nor_on_a_seed(batch, subject_of, proofs):
    net, x = three_way_net(), torch.rand(5, 1, 4, 4)
    certificate = Derandomized(piece="block", width=2, threshold=0.3)
    usual = proofs(certificate, subject_of(net, x, classes=3))
    again = proofs(certificate, subject_of(net, x, batch=batch, seed=7, classes=3))
    assert (usual["votes"].sum((1, 2)) > 0).all()
    for name, values in again.items():
        assert np.array_equal(values, usual[name]), name


def test_a_class_has_a_vote_of_every_band_in_which_it_is_likely_enough():
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.2], [0.31, 0.31, 0.38], [0.9, 0.05, 0.05]]))
    votes = Derandomized(threshold=0.3001).ballots(logits)
    assert votes.tolist() == [[True, False, False], [True, True, True], [True, False, False]]


def test_a_band_is_not_wider_than_the_images(subject_of):
    subject = subject_of(three_way_net(), torch.rand(2, 1, 4, 4))
    with pytest.raises(UserError, match="width=5: images have 4 pixels a side"):
        Derandomized(width=5).check(subject)
    (base, other) = Derandomized(width=3).notes(subject)
    assert "base net" in base
    assert other == "the model was trained on parts, and is shown columns of width 3 pixels"
