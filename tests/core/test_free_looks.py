"""Looks that leave out work: they answer on a CPU, and never ask a device."""

import pytest
import torch
from pretend_device import on_device, pretended_device, waits

from robustbench_cli.core.free_looks import surely_all, surely_finite, surely_none

LOOKS = [
    (surely_none, torch.zeros(3, dtype=torch.bool), torch.tensor([False, True, False])),
    (surely_all, torch.ones(3, dtype=torch.bool), torch.tensor([True, False, True])),
    (surely_finite, torch.tensor([[1.0, -2.0]]), torch.tensor([[1.0, torch.inf]])),
    (surely_finite, torch.zeros(0, 3), torch.tensor([[torch.nan, 0.0]])),
    (surely_finite, torch.zeros(2), torch.tensor([torch.inf, -torch.inf])),
]


@pytest.mark.parametrize(("look", "yes", "no"), LOOKS)
def test_a_look_answers_on_a_cpu_and_asks_no_device(look, yes, no):
    assert look(yes)
    assert not look(no)
    with pretended_device(), waits() as found:
        assert not look(on_device(yes))
    assert not found


def test_finite_numbers_whose_sum_is_not_are_not_sure():
    largest = torch.full((4,), torch.finfo(torch.float32).max)
    assert not surely_finite(largest)
