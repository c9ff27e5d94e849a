"""The order of a method's training passes, read from BatchNorm's running statistics."""

import copy
from contextlib import ExitStack

import pytest
import torch

from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.threat import Threat
from robustbench_cli.defenses import Recipe, parse
from robustbench_cli.defenses._step import Step

ORDERS = dict.fromkeys(("alp", "mart", "trades"), ("clean", "adv"))
"""As the published codes make them, but for TRADES' third pass, which is shared."""


def step_of(model, batch):
    x, y = batch
    noise = Noise(0, torch.arange(len(x)))
    return Step(model=model, x=x, y=y, threat=Threat("Linf", 0.1), noise=noise)


def remembered(model, *passes):
    """Return the running statistics of every layer after these forward passes in train mode."""
    net = copy.deepcopy(model).train()
    with torch.no_grad():
        for images in passes:
            net(images)
    return dict(net.named_buffers())


@pytest.mark.parametrize("name", ORDERS)
def test_the_running_statistics_are_those_of_the_passes_in_this_order(name, model, batch):
    recipe = Recipe.build(parse(f"{name}:steps=3"))
    attacked = copy.deepcopy(model).eval()
    adv = recipe.objective.crafted(step_of(attacked, batch))["adv"]
    images = {"clean": batch[0], "adv": adv}
    right = [images[each] for each in ORDERS[name]]
    net = copy.deepcopy(model).train()
    with ExitStack() as release:
        recipe.backward(step_of(net, batch), release)
    found = dict(net.named_buffers())
    torch.testing.assert_close(found, remembered(model, *right), rtol=1e-12, atol=1e-12)
    conv, mean = model.body.conv1, model.body.bn1.running_mean.clone()
    for each in right:  # the first layer's mean by hand: momentum 0.1, the last pass weighs most
        mean = 0.9 * mean + 0.1 * conv((each - 0.2) / 0.7).mean((0, 2, 3)).detach()
    torch.testing.assert_close(found["body.bn1.running_mean"], mean)
    # The other order would be noticed in every layer.
    other = remembered(model, *reversed(right))
    for key, value in found.items():
        if "running" in key:
            assert (value - other[key]).abs().max() > 1e-6, key
