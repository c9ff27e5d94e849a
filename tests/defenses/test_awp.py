"""AWP: gamma 0 is the base method, the loss rises, weights are restored, decay acts at the moved
weights."""

import copy
from contextlib import ExitStack

import pytest
import torch

from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.threat import Threat
from robustbench_cli.defenses import Recipe, parse
from robustbench_cli.defenses._step import Step


def trained(text, model, batch, epoch=100, lr=0.1, weight_decay=0.0):
    """One optimiser step; returns the net and the loss."""
    recipe = Recipe.build(parse(text))
    net = copy.deepcopy(model).train()
    optimizer = torch.optim.SGD(net.parameters(), lr, weight_decay=weight_decay)
    x, y = batch
    step = Step(
        model=net,
        x=x,
        y=y,
        threat=Threat("Linf", 0.1),
        noise=Noise(0, torch.arange(6)),
        epoch=epoch,
    )
    with ExitStack() as moved:
        loss = recipe.backward(step, moved).loss
        optimizer.step()
    return net, loss


def test_gamma_zero_and_the_warm_up_are_the_base_bit_for_bit(model, batch):
    base, _ = trained("trades", model, batch)
    for text, epoch in (("trades+awp:gamma=0", 100), ("trades+awp:warmup=5", 4)):
        net, _ = trained(text, model, batch, epoch)
        torch.testing.assert_close(net.state_dict(), base.state_dict(), rtol=0, atol=0)


def test_the_moved_weights_have_a_higher_loss(model, batch):
    _, base = trained("pgd-at:attack_mode=eval", model, batch)
    _, moved = trained("pgd-at:attack_mode=eval+awp:gamma=0.01", model, batch)
    assert moved > base


def test_weights_come_back_and_batchnorm_sees_each_pass_once(model, batch):
    net, _ = trained("trades+awp:warmup=0", model, batch, lr=0.0)
    for p, q in zip(net.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-7)
    norms = [
        next(m for m in each.modules() if isinstance(m, torch.nn.BatchNorm2d))
        for each in (net, model)
    ]
    assert int(norms[0].num_batches_tracked - norms[1].num_batches_tracked) == 2


def test_weight_decay_acts_at_the_moved_weights(model, batch):
    """w_new = w - lr (grad L(w + v) + wd (w + v)): the decay adds -lr wd v to plain decay."""
    lr, decay = 0.1, 0.05
    plain, _ = trained("pgd-at:attack_mode=eval+awp", model, batch, lr=lr)
    decayed, _ = trained("pgd-at:attack_mode=eval+awp", model, batch, lr=lr, weight_decay=decay)
    off = []
    for (name, before), p, q in zip(
        model.named_parameters(), plain.parameters(), decayed.parameters(), strict=True
    ):
        extra = (p - q) / (lr * decay)  # w + v where the weight moved, w elsewhere
        size = ((extra - before).norm() / before.norm().clamp_min(1e-12)).item()
        off.append((size, name, before.ndim))
    assert all(size == pytest.approx(0.01, rel=1e-3) for size, _, ndim in off if ndim > 1)
    assert all(size < 1e-6 for size, _, ndim in off if ndim == 1)
