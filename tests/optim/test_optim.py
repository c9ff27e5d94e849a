"""Schedules at the points where they are known, and what decays."""

import math

import numpy as np
import pytest
import torch

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.registry import Spec
from robustbench_cli.optim import OPTIMIZERS, SCHEDULES


@pytest.mark.parametrize(
    ("name", "params", "points"),
    [
        ("constant", {}, {0: 1, 0.99: 1}),
        ("piecewise", {}, {0: 1, 0.4999: 1, 0.5: 0.1, 0.7499: 0.1, 0.75: 0.01, 0.999: 0.01}),
        ("piecewise", {"milestones": ["74/76"]}, {73.99 / 76: 1, 74 / 76: 0.1}),
        ("cosine", {}, {0: 1, 0.5: 0.5, 1: 0}),
        ("cyclic", {}, {0: 0, 0.25: 0.5, 0.5: 1, 0.75: 0.5, 1: 0}),
        ("cyclic", {"peak": "2/5"}, {0.4: 1, 0.7: 0.5}),
        ("cosine", {"warmup": 0.5}, {0: 0, 0.25: 0.5 * 0.853553, 0.5: 0.5}),
        ("cosine", {"floor": 0.2}, {0: 1, 0.5: 0.6, 1: 0.2}),
        ("multi-decay", {}, {0: 1, 0.0999: 1, 0.1: 0.9, 0.5: 0.5, 0.7: 0.3, 0.999: 0.1, 1: 0}),
        ("multi-decay", {"drops": 2}, {0.49: 1, 0.5: 0.5, 0.99: 0.5}),
        ("linear", {}, {0: 1, 0.2: 1, 1 / 3: 1, 0.5: 0.55, 2 / 3: 0.1, 5 / 6: 0.055, 1: 0.01}),
        ("linear", {"times": [0.5], "factors": [0.3]}, {0: 0.3, 0.5: 0.3, 1: 0.3}),
        ("one-cycle", {}, {0: 0.04, 0.15: 0.52, 0.3: 1, 0.65: 0.500002, 1: 4e-6}),
    ],
)
def test_schedules(name, params, points):
    schedule = SCHEDULES.build(Spec(name, params))
    for t, factor in points.items():
        assert schedule(t) == pytest.approx(factor, abs=1e-6), t


RICE = {
    "piecewise": lambda t: 0.1 if t / 300 < 0.5 else 0.01 if t / 300 < 0.75 else 0.001,
    "multi-decay": lambda t: 0.1 - (t // (300 // 10)) * (0.1 / 10),
    "linear": lambda t: np.interp(t, [0, 100, 200, 300], [0.1, 0.1, 0.01, 0.001]),
    "cyclic": lambda t: np.interp(t, [0, 120, 300], [0, 0.1, 0]),
    "cosine": lambda t: 0.1 * 0.5 * (1 + math.cos(t / 300 * math.pi)),
}
"""Robust overfitting's schedules at a rate of 0.1 over 300 epochs; a triangle "superconverges"."""


@pytest.mark.parametrize("name", RICE)
def test_schedules_of_robust_overfitting(name):
    params = {"cyclic": {"peak": "2/5"}}.get(name, {})
    schedule = SCHEDULES.build(Spec(name, params))
    for t in np.arange(0, 300, 0.5):
        assert 0.1 * schedule(t / 300) == pytest.approx(RICE[name](t), rel=1e-6), t


@pytest.mark.parametrize(
    ("milestones", "epochs", "drops"),
    [
        (["74/76"], 76, [75]),  # TRADES
        (["99/200", "149/200"], 200, [100, 150]),  # TRADES-AWP
        (["74/120", "89/120", "99/120"], 120, [75, 90, 100]),  # MART
        (["99/110", "104/110"], 110, [100, 105]),  # Bag of Tricks
    ],
)
def test_drops_fall_on_their_epoch(milestones, epochs, drops):
    """Epochs are counted from one, as the papers do; ``t`` is where one begins."""
    schedule = SCHEDULES.build(Spec("piecewise", {"milestones": milestones}))
    for epoch in range(1, epochs + 1):
        expected = 0.1 ** sum(epoch >= drop for drop in drops)
        assert schedule((epoch - 1) / epochs) == pytest.approx(expected), epoch
        assert schedule((epoch - 0.01) / epochs) == pytest.approx(expected), epoch


def test_a_rate_in_levels_is_that_of_an_epoch_of_another_length():
    """Carmon et al.'s 200 epochs of 196 updates in 17 passes over SVHN of 2,364."""
    schedule = SCHEDULES.build(Spec("cosine", {"levels": 200, "per": "epoch"}))
    for update in range(0, 17 * 2364, 7):
        began = update // 2364 / 17
        epoch = math.floor(update / (17 * 2364) * 200)
        expected = 0.5 * (1 + math.cos(math.pi * epoch / 200))
        assert schedule(update / (17 * 2364), began=began) == pytest.approx(expected)
    whole = [schedule(epoch / 200) for epoch in range(200)]
    assert len({*whole}) == 200  # none is lost to rounding where a level begins
    assert schedule.factor(0.0) == whole[0] == 1.0


def test_a_cosine_ends_where_hendrycks_et_al_end_it():
    schedule = SCHEDULES.build(Spec("cosine", {"floor": 1e-5}))
    steps = 1000
    for step in range(steps):
        factor = 1e-5 + (1 - 1e-5) * 0.5 * (1 + math.cos(step / steps * math.pi))
        assert schedule(step / steps) == pytest.approx(factor)
    assert 0.1 * schedule(1.0) == pytest.approx(1e-6)


def test_one_cycle_is_torch_s():
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    steps = 4000
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=steps)
    schedule = SCHEDULES.build(Spec("one-cycle"))
    for step in range(steps - 1):
        # Theirs reaches the end with the last step, ours after it.
        assert theirs.get_last_lr()[0] == pytest.approx(schedule(step / steps), abs=2e-3)
        optimizer.step()
        theirs.step()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"times": [0, 1]}, "2 times and 4 factors"),
        ({"times": [], "factors": []}, "0 times and 0 factors"),
        ({"times": [0, 0.5, 0.5, 1]}, "times must rise"),
        ({"times": [0, 0.2, 0.5, 2]}, "times.*less than or equal to 1"),
        ({"per": "batch"}, "per.*'iteration' or 'epoch'.*'batch'"),
    ],
)
def test_lines_that_lead_nowhere_are_refused(params, message):
    with pytest.raises(UserError, match=message) as caught:
        SCHEDULES.build(Spec("linear", params))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", OPTIMIZERS.names())
def test_biases_and_batchnorm_decay_only_if_asked(name):
    net = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3))
    every = OPTIMIZERS.build(Spec(name, {"weight_decay": 0.1})).build(net, 0.5)
    assert [(len(g["params"]), g["weight_decay"]) for g in every.param_groups] == [(4, 0.1)]
    some = OPTIMIZERS.build(Spec(name, {"weight_decay": 0.1, "decay_norm": False})).build(net, 0.5)
    assert [(len(g["params"]), g["weight_decay"]) for g in some.param_groups] == [(1, 0.1), (3, 0)]
    assert all(g["lr"] == 0.5 for g in every.param_groups + some.param_groups)


def test_sgd_is_the_formula():
    w = torch.nn.Parameter(torch.tensor([[2.0]]))
    net = torch.nn.Module()
    net.w = w
    spec = Spec("sgd", {"momentum": 0.5, "weight_decay": 0.1})
    optimizer = OPTIMIZERS.build(spec).build(net, 0.1)
    velocity, value = 0.0, 2.0
    for _ in range(3):
        optimizer.zero_grad()
        (3 * w).sum().backward()
        optimizer.step()
        velocity = 0.5 * velocity + 3 + 0.1 * value
        value -= 0.1 * velocity
        assert w.item() == pytest.approx(value)
