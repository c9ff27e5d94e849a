"""The device that tests pretend to have (``tests/plugins/pretend_device.py``)."""

import copy

import pytest
import torch
from pretend_device import (
    PRETENDED,
    REFUSED,
    OnDevice,
    module_on_device,
    on_device,
    pretended_device,
    waits,
)
from torch import nn

WAITING = {
    "item": lambda x: x.sum().item(),
    "float": lambda x: float(x[0]),
    "bool": lambda x: bool((x > 0).all()),
    "branch": lambda x: 1 if x.sum() > 0 else 2,
    "index by a number": lambda x: x[x.argmax()],
    "equal": lambda x: torch.equal(x, x + 1),
    "tolist": lambda x: x.tolist(),
    "cpu": lambda x: x.cpu(),
    "to the device": lambda x: torch.ones(3).to(PRETENDED),
    "copy": lambda x: x.copy_(torch.ones(4)),
    "nonzero": lambda x: x.nonzero(),
    "where": lambda x: torch.where(x > 0),
    "mask": lambda x: x[x > 0],
    "write under a mask": lambda x: x.__setitem__(x > 0, x[:1]),
    "masked_select": lambda x: x.masked_select(x > 0),
    "unique": lambda x: x.unique(),
    "numbers": lambda x: torch.tensor([1, 2], device=x.device),
    "new_tensor": lambda x: x.new_tensor([1.0]),
    "indices on the CPU": lambda x: x[torch.arange(2)],
    "solve": lambda x: torch.linalg.solve(x.diag(), x),
}
WORKING = {
    "where": lambda x: torch.where(x > 0, x, 0),
    "masked_fill": lambda x: x.masked_fill(x > 0, 1),
    "sort": lambda x: x.sort().values[:2],
    "gather": lambda x: x.gather(0, x.argsort()),
    "index": lambda x: x[torch.arange(2, device=x.device)],
    "write": lambda x: x.__setitem__(slice(2), 0),
    "zeros": lambda x: torch.zeros(4, device=x.device) + x,
    "zeros_like": lambda x: torch.zeros_like(x) + x,
    "one number of the CPU": lambda x: x * torch.tensor(2.0),
    "queued": lambda x: torch.ones(4).to(x.device, non_blocking=True) + x,
}
MIXING = {
    "sum": lambda x: x + torch.ones(4),
    "cat": lambda x: torch.cat([x, torch.ones(4)]),
    "write": lambda x: x.__setitem__(slice(None), x) or torch.ones(4).add_(x),
    "generator": lambda x: torch.randn(4, generator=torch.Generator(), device=x.device),
    "numpy": lambda x: x.numpy(),
}


@pytest.fixture
def x():
    return on_device(torch.tensor([1.0, 2.0, 3.0, 4.0]))


@pytest.mark.parametrize("what", WAITING)
def test_what_waits_is_noted_once(what, x):
    with pretended_device(), waits() as found:
        WAITING[what](x)
    assert len(found) == 1


@pytest.mark.parametrize("what", WORKING)
def test_what_does_not_wait_is_not_noted_and_stays_there(what, x):
    with pretended_device(), waits() as found:
        made = WORKING[what](x)
    assert not found
    assert made is None or isinstance(made, OnDevice)


@pytest.mark.parametrize("what", MIXING)
def test_both_places_in_one_operation_are_refused(what, x):
    with pretended_device(), waits() as found, pytest.raises(RuntimeError, match="device"):
        MIXING[what](x)
    assert found[-1].operation.startswith(REFUSED)


def test_a_net_learns_there_what_it_learns_here():
    torch.manual_seed(0)
    here = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 3))
    there = module_on_device(copy.deepcopy(here))
    copied = copy.deepcopy(there)
    x, y = torch.rand(5, 1, 8, 8), torch.tensor([0, 1, 2, 0, 1])
    for net, images, labels in ((here, x, y), (there, on_device(x), on_device(y))):
        with pretended_device():
            optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, fused=True)
            for _ in range(2):
                optimizer.zero_grad()
                nn.functional.cross_entropy(net(images), labels).backward()
                optimizer.step()
    ours = there.state_dict()
    for name, value in here.state_dict().items():
        torch.testing.assert_close(ours[name].held, value)
    assert not torch.equal(copied[0].weight.detach().held, ours["0.weight"].held)
