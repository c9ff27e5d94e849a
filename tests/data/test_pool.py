"""The extra pool: its share of a batch, and the numbers of its classes."""

import pytest
import torch

from robustbench_cli.core.errors import UserError
from robustbench_cli.data import Split
from robustbench_cli.data.pool import Pool, renumbered

ANIMALS = ("ant", "bee", "cat")


def named(*classes):
    """Return a split with one image of each class."""
    return Split(torch.zeros(len(classes), 1, 2, 2), torch.arange(len(classes)), classes)


@pytest.mark.parametrize(
    ("share", "size", "room"),
    [(0.5, 128, 64), (0.25, 10, 8), (0.9, 7, 1), (0.07, 8, 7), (1.0, 8, 0)],
)
def test_the_labelled_examples_fill_the_rest_of_a_batch(share, size, room):
    assert Pool(data=named(*ANIMALS), share=share, first=0).labelled_per_batch(size) == room


@pytest.mark.parametrize(("share", "size"), [(0.06, 8), (0.94, 8), (0.001, 128)])
def test_a_share_that_rounds_to_all_or_nothing_is_refused(share, size):
    with pytest.raises(UserError, match="at least one of each is needed"):
        Pool(data=named(*ANIMALS), share=share, first=0).labelled_per_batch(size)


@pytest.mark.parametrize(
    ("theirs", "ours", "labels"),
    [
        (("cat", "ant"), ANIMALS, [2, 0]),
        (("ant", "bee", "cat"), ("cat", "bee", "ant"), [2, 1, 0]),
        (("0", "1", "2"), ANIMALS, [0, 1, 2]),
        (("0", "2"), ANIMALS, [0, 2]),  # numbers of folders, too
        (("1", "0"), ("1", "0"), [0, 1]),  # names first
        (("3", "7"), tuple("0123456789"), [3, 7]),
        (("0", "1"), ("0 - zero", "1 - one"), [0, 1]),
    ],
)
def test_labels_are_those_of_the_data_set(theirs, ours, labels):
    found = renumbered(named(*theirs), ours)
    assert found.y.tolist() == labels
    assert found.classes == ours


@pytest.mark.parametrize(
    ("theirs", "odd"), [(("ant", "dog"), "ant"), (("0", "3"), "3"), (("dog", "emu"), "dog")]
)
def test_a_class_that_the_data_set_has_not_is_named(theirs, odd):
    with pytest.raises(UserError, match=f"a class '{odd}', which the data set has not: it has 3"):
        renumbered(named(*theirs), ANIMALS)


def test_an_image_without_a_label_says_what_to_add():
    half = Split(torch.zeros(4, 1, 2, 2), torch.tensor([0, -100, 1, -100]), ANIMALS)
    with pytest.raises(UserError, match="2 of its 4 images have no label") as caught:
        renumbered(half, ANIMALS)
    assert "--labeller RUN" in str(caught.value)
    assert "--set train.extra_labels=none" in str(caught.value)
