"""L1 and L2 penalties: their weights and gradients, and L2 beside the optimiser's decay."""

import copy
from contextlib import ExitStack

import pytest
import torch

from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.defenses import Recipe, parse
from robustbench_cli.defenses._step import Step
from robustbench_cli.optim import OPTIMIZERS


def trained(text, model, batch, optimizer, steps=1):
    """Return the network after some updates, and the loss of the last."""
    net, recipe = copy.deepcopy(model).train(), Recipe.build(parse(text))
    optimizer = optimizer.build(net, 0.1)
    x, y = batch
    for i in range(steps):
        noise = Noise(0, torch.arange(6), f"step {i}")
        step = Step(model=net, x=x, y=y, threat=Threat("Linf", 0.1), noise=noise)
        optimizer.zero_grad()
        with ExitStack() as moved:
            loss = recipe.backward(step, moved).loss
            optimizer.step()
    return net, loss


def sgd(**params):
    return OPTIMIZERS.build(Spec("sgd", {"weight_decay": 0.0, **params}))


@pytest.mark.parametrize(
    ("text", "slope", "size"),
    [
        ("l1:amount=0.01", lambda w: 0.01 * w.sign(), lambda w: 0.01 * w.abs().sum()),
        ("l2:amount=0.02", lambda w: 0.02 * w, lambda w: 0.01 * w.square().sum()),
    ],
)
def test_loss_and_gradient_are_the_formula_on_weights_alone(text, slope, size, model, batch):
    base, plain = trained("standard", model, batch, sgd())
    net, loss = trained(f"standard+{text}", model, batch, sgd())
    weights = [p for n, p in model.named_parameters() if "bn" not in n and "bias" not in n]
    assert 0 < len(weights) < len(list(model.parameters()))
    total = sum(size(w) for w in weights if w.ndim > 1)
    torch.testing.assert_close(loss, plain + total.detach())
    for before, p, q in zip(model.parameters(), base.parameters(), net.parameters(), strict=True):
        expected = slope(before) if before.ndim > 1 else torch.zeros_like(before)
        torch.testing.assert_close(q.grad - p.grad, expected)


@pytest.mark.parametrize("name", ["sgd", "adam"])
@pytest.mark.parametrize("objective", ["standard", "pgd-at:steps=2"])
def test_l2_is_the_optimiser_s_decay_of_weights_alone(name, objective, model, batch):
    decaying = OPTIMIZERS.build(Spec(name, {"weight_decay": 0.03, "decay_norm": False}))
    bare = OPTIMIZERS.build(Spec(name, {"weight_decay": 0.0}))
    expected, _ = trained(objective, model, batch, decaying, steps=3)
    actual, _ = trained(f"{objective}+l2:amount=0.03", model, batch, bare, steps=3)
    torch.testing.assert_close(actual.state_dict(), expected.state_dict())


def test_l2_comes_on_top_of_the_optimiser_s_decay(model, batch):
    once, _ = trained("standard+l2:amount=0.03", model, batch, sgd())
    twice, _ = trained(
        "standard+l2:amount=0.01", model, batch, sgd(weight_decay=0.02, decay_norm=False)
    )
    torch.testing.assert_close(twice.state_dict(), once.state_dict())


def test_an_amount_of_zero_is_the_base_bit_for_bit(model, batch):
    base, _ = trained("standard", model, batch, sgd())
    for text in ("standard+l1:amount=0", "standard+l2:amount=0"):
        net, _ = trained(text, model, batch, sgd())
        torch.testing.assert_close(net.state_dict(), base.state_dict(), rtol=0, atol=0)
