"""Schedules at the points where they are known, and what decays."""

import pytest
import torch

from robustbench_cli.optim import OPTIMIZERS, SCHEDULES
from robustbench_cli.registry import Spec


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
    ],
)
def test_schedules(name, params, points):
    schedule = SCHEDULES.build(Spec(name, params))
    for t, factor in points.items():
        assert schedule(t) == pytest.approx(factor, abs=1e-6), t


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
