"""Class-balanced batches and mined triplets: what they hold, and that they follow from a key."""

import numpy as np
import pytest
import torch

from robustbench_cli.core.errors import UserError
from robustbench_cli.metric_learning._mining import _MINERS, mined
from robustbench_cli.metric_learning._package import keyed_numpy, package_part
from robustbench_cli.metric_learning._sampling import balanced_batches


@pytest.fixture
def labels():
    return torch.arange(10).repeat_interleave(torch.arange(6, 16))


def test_batches_hold_every_class_about_as_often_as_any_other(labels):
    batches = balanced_batches(labels, 2, 24, (0, 0))
    assert [len(rows) for rows in batches] == [24] * (len(labels) // 24)
    for rows in batches:
        assert rows.dtype == torch.int64
        pairs = labels[rows].view(-1, 2)
        assert (pairs[:, 0] == pairs[:, 1]).all()
        counts = torch.bincount(labels[rows], minlength=10)
        assert counts.max() - counts.min() <= 4  # two groups, where rounds over classes meet
    every = torch.bincount(labels[torch.cat(batches)])
    assert every.max() - every.min() <= 2


def test_batches_follow_from_the_key_and_leave_numpy_alone(labels):
    before = np.random.get_state()[1].copy()
    first = torch.cat(balanced_batches(labels, 2, 24, (0, 3)))
    assert torch.equal(first, torch.cat(balanced_batches(labels, 2, 24, (0, 3))))
    assert not torch.equal(first, torch.cat(balanced_batches(labels, 2, 24, (0, 4))))
    assert not torch.equal(first, torch.cat(balanced_batches(labels, 2, 24, (1, 3))))
    assert (np.random.get_state()[1] == before).all()
    common = package_part("utils.common_functions")
    usual = common.NUMPY_RANDOM
    with pytest.raises(KeyError), keyed_numpy("a"):
        raise KeyError
    assert common.NUMPY_RANDOM is usual


def test_more_classes_than_a_batch_has_groups(labels):
    many = torch.arange(100).repeat_interleave(3)
    batches = balanced_batches(many, 2, 16, (0,))
    assert len(batches) == 18
    assert all(len(rows) == 16 for rows in batches)


def test_one_class_cannot_be_told_from_others():
    with pytest.raises(UserError, match="all training images are of one"):
        balanced_batches(torch.zeros(20, dtype=torch.long), 2, 4, (0,))


@pytest.mark.parametrize("name", sorted(_MINERS))
def test_each_anchor_has_one_triplet_of_its_class_and_of_another(name, step):
    z = step.clean_embeddings()
    found = mined(name, z, step.y, margin=0.2, unit=True, key=(1,))
    assert found.anchor.tolist() == list(range(len(z)))
    assert (step.y[found.positive] == step.y).all()
    assert (found.positive != found.anchor).all()
    assert (step.y[found.negative] != step.y).all()
    again = mined(name, z, step.y, margin=0.2, unit=True, key=(1,))
    assert all(map(torch.equal, found, again))
    drawn = torch.get_rng_state()
    other = [mined(name, z, step.y, margin=0.2, unit=True, key=(k,)) for k in range(2, 8)]
    assert torch.equal(torch.get_rng_state(), drawn)
    assert any(not torch.equal(found.positive, each.positive) for each in other)


def test_miners_choose_by_distance():
    # On a line: class 0 at 0 and 1, class 1 at 1.1 and 5.
    z, y = torch.tensor([[0.0], [1.0], [1.1], [5.0]]), torch.tensor([0, 0, 1, 1])
    semihard = mined("semihard", z, y, margin=0.2, unit=False, key=(0,))
    assert (semihard.positive[0], semihard.negative[0]) == (1, 2)  # 1 < 1.1 < 1 + 0.2
    hard = mined("hard", z, y, margin=0.2, unit=False, key=(0,))
    assert (hard.positive[1], hard.negative[1]) == (0, 2)  # 0.1 < 1
    assert (hard.positive[2], hard.negative[2]) in ((3, 0), (3, 1))  # both are nearer than 3.9


def test_anchors_without_a_positive_have_no_triplet():
    z, y = torch.eye(3), torch.tensor([0, 0, 1])
    assert mined("random", z, y, margin=0.2, unit=True, key=(0,)).anchor.tolist() == [0, 1]
