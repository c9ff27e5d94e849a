"""Tensors are sent to a device without a wait for it."""

import torch
from pretend_device import PRETENDED, on_device, pretended_device, waits

from robustbench_cli.core.transfer import sent


def test_nothing_is_copied_on_the_cpu():
    rows = torch.arange(3)
    assert sent(rows, torch.device("cpu")) is rows


def test_sending_does_not_wait_and_changes_no_number():
    rows = torch.arange(3)
    with pretended_device(), waits() as found:
        there = sent(rows, PRETENDED)
        assert there.device == PRETENDED
    assert not found
    assert torch.equal(there.held, rows)


def test_what_is_there_stays_there():
    there = on_device(torch.arange(3))
    with pretended_device(), waits() as found:
        assert torch.equal(sent(there, PRETENDED).held, there.held)
    assert not found
