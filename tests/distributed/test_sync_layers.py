"""A batch that several processes share: what the updates are is tested with torchrun."""

import pytest
import torch
from torch.overrides import _pop_mode

from robustbench_cli.distributed.group import Shard
from robustbench_cli.distributed.sync_layers import whole_batch


def test_an_interruption_while_torch_has_the_mode_off_its_stack_stays_one():
    def interrupted():
        _pop_mode()  # what torch does while a function runs
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), whole_batch(Shard(0, 2), 4):
        interrupted()


def test_errors_pass_as_they_are():
    with pytest.raises(RuntimeError, match="must match the size"), whole_batch(Shard(0, 2), 4):
        torch.ones(2) + torch.ones(3)
