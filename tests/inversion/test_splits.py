"""No image of a privacy audit is in two hands."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustbench_cli.core.errors import UserError
from robustbench_cli.data import Split
from robustbench_cli.inversion.splits import audit_splits


def split(n):
    """Images that hold their own number."""
    x = torch.arange(n).view(n, 1, 1, 1).expand(n, 1, 2, 2).float() / 10_000
    return Split(x, torch.arange(n) % 3, ("a", "b", "c"))


@settings(deadline=None)
@given(
    train=st.integers(40, 300),
    test=st.integers(80, 300),
    used=st.none() | st.integers(0, 300),
    n=st.none() | st.integers(10, 40),
)
def test_parts_are_disjoint_whatever_there_is(train, test, used, n):
    used = None if used is None else min(used, train)
    found = audit_splits(split(train), split(test), used, None, n)
    assert not found.overlaps()
    own_split = found.where["attacker"].partition(" ")[0]
    attacker = {*found.train.ids.tolist()} | {*found.validation.ids.tolist()}
    assert len(attacker) == len(found.train) + len(found.validation)
    if own_split == "train":
        assert used is not None
        assert min(attacker) >= used
    else:
        assert attacker.isdisjoint(found.evaluation.ids.tolist())
        assert found.notes
    first, last = map(int, found.where["evaluation"].split(" ")[1].split("-"))
    assert found.evaluation.ids.tolist() == list(range(first, last + 1))
    assert len(found.evaluation) == (n or last - first + 1)


def test_the_attacker_has_what_the_victim_left():
    found = audit_splits(split(200), split(100), 120, None, None)
    assert found.where == {
        "victim": "train 0-119",
        "attacker": "train 120-199",
        "evaluation": "test 0-99",
    }
    assert sorted([*found.train.ids.tolist(), *found.validation.ids.tolist()]) == [*range(120, 200)]
    assert (len(found.train), len(found.validation)) == (64, 16)
    assert not found.notes


def test_of_an_unknown_victim_only_test_images_are_sure():
    found = audit_splits(split(200), split(100), None, None, None)
    assert found.where["attacker"] == "test 0-49"
    assert found.where["evaluation"] == "test 50-99"
    assert "not known" in found.notes[0]


def test_the_splits_of_a_victim_with_all_training_images_are_told():
    found = audit_splits(split(200), split(100), 200, None, None)
    assert found.where["attacker"] == "test 0-49"
    assert "train.limit" in found.notes[0]


@pytest.mark.parametrize(
    ("attacker", "n", "said"),
    [(90, None, "--attacker 90"), (None, 101, "--n 101"), (20, None, "at least")],
)
def test_too_few_images_are_refused(attacker, n, said):
    with pytest.raises(UserError, match=said):
        audit_splits(split(200), split(100), 120 if n else 200, attacker, n)
