"""The one ascent loop of training, and what a defense may do at each of its steps."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.gradient_ascent import (
    Ascent,
    ascend,
    gradient,
    iterate,
    projected_step,
)
from robustbench_cli.core.losses import cross_entropy
from robustbench_cli.core.threat import Threat


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 12), nn.ReLU(), nn.Linear(12, 4)).double()


@pytest.fixture
def task(net):
    x = torch.rand(20, 1, 6, 6).double()
    return net, cross_entropy, net(x).argmax(1), x


NOISE = Noise(0, torch.arange(20))
CLIMB = Ascent(steps=6, step=0.3)


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_the_ascent_is_the_formula(norm, task):
    """PGD by hand: x <- project(x + step eps steepest(grad)), from the random start."""
    net, _, y, x = task
    threat = Threat(norm, 0.1)
    x_adv = threat.random_start(x, NOISE.fork("start"))
    for _ in range(6):
        leaf = x_adv.clone().requires_grad_()
        F.cross_entropy(net(leaf), y, reduction="sum").backward()
        x_adv = threat.project(x_adv + 0.3 * 0.1 * threat.steepest(leaf.grad), x)
    found = ascend(*task, threat, NOISE, CLIMB)
    torch.testing.assert_close(found, x_adv, rtol=0, atol=1e-12)
    assert not found.requires_grad


def test_a_defense_sees_every_iterate_and_may_count_on_the_way(task):
    """As GAIRAT needs it (Zhang et al., 2021): steps until the example is misclassified."""
    net, _, y, x = task
    threat = Threat("Linf", 0.15)
    seen, held = [], torch.zeros(len(y), dtype=torch.long)

    def counting(here):
        seen.append(here)
        held.add_(here.logits.argmax(1) == y)
        return projected_step(here.x_adv, here.grad, x, threat, CLIMB.step)

    found = ascend(*task, threat, NOISE, CLIMB, counting)
    assert torch.equal(found, ascend(*task, threat, NOISE, CLIMB))  # it only looked
    assert [here.step_index for here in seen] == list(range(6))
    for here in seen:
        logits, grad = gradient(net, cross_entropy, y, here.x_adv)
        assert torch.equal(here.logits, logits)
        assert torch.equal(here.grad, grad)
        assert not here.logits.requires_grad
    expected = sum((net(here.x_adv).argmax(1) == y).long() for here in seen)
    assert torch.equal(held, expected)
    assert len(held.unique()) > 1


def test_a_step_of_one_s_own_replaces_the_projected_one(task):
    *_, x = task
    threat = Threat("Linf", 0.1)
    found = ascend(*task, threat, NOISE, CLIMB, lambda here: x + 0.01 * (here.step_index + 1))
    torch.testing.assert_close(found, x + 0.06)


def test_no_steps_return_the_first_iterate(task):
    net, loss, y, x = task
    assert iterate(net, loss, y, x, 0, lambda here: here.x_adv + 1) is x


def test_no_gradient_reaches_the_weights(task):
    ascend(*task, Threat("Linf", 0.1), NOISE, CLIMB)
    assert all(p.grad is None for p in task[0].parameters())
