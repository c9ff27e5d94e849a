"""Robust self-training with an attack or with noise, with a labelled or an unlabelled pool."""

import copy
from contextlib import ExitStack
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.losses import kl
from robustbench_cli.core.threat import Threat
from robustbench_cli.defenses import Recipe, parse
from robustbench_cli.defenses._step import Passes, Step

BOTH = ["rst:steps=3", "rst-stab"]
NAMES = {"rst:steps=3": "adv", "rst-stab": "noisy"}


def step_of(model, x, y):
    return Step(
        model=model,
        x=x,
        y=y,
        threat=Threat("Linf", 0.1),
        noise=Noise(0, torch.arange(len(x))),
        extra=y < 0 if (y < 0).any() else None,
    )


def backward(text, model, x, y):
    """Return the loss, the gradients, and the network after them."""
    recipe = Recipe.build(parse(text))
    net = recipe.prepare(copy.deepcopy(model)).train()
    with ExitStack() as release:
        trained = recipe.backward(step_of(net, x, y), release)
    return trained.loss, [p.grad for p in net.parameters()], net


def moved_by(text, model, x, y):
    """Return the perturbed images of a recipe, made in evaluation mode."""
    net = copy.deepcopy(model).eval()
    return Recipe.build(parse(text)).objective.crafted(step_of(net, x, y))[NAMES[text]]


def by_hand(net, x, moved, y, beta):
    """Return the loss: cross-entropy of the labelled, KL of all; perturbed images first."""
    q, p = F.softmax(net(moved), 1), F.softmax(net(x), 1)
    natural = [-torch.log(p[i, label]) for i, label in enumerate(y.tolist()) if label >= 0]
    drift = (p * (torch.log(p) - torch.log(q))).sum()
    return sum(natural) / len(natural) + beta * drift / len(x)


@pytest.mark.parametrize("text", BOTH)
@pytest.mark.parametrize("labelled", [6, 4, 1])
def test_loss_gradient_and_batchnorm(text, labelled, model, batch):
    x, y = batch
    y = torch.where(torch.arange(6) < labelled, y, -100)
    loss, gradients, net = backward(text, model, x, y)
    reference = copy.deepcopy(model).train()
    expected = by_hand(reference, x, moved_by(text, model, x, y), y, 6.0)
    torch.testing.assert_close(loss, expected.detach())
    expected.backward()
    torch.testing.assert_close(gradients, [p.grad for p in reference.parameters()])
    torch.testing.assert_close(dict(net.named_buffers()), dict(reference.named_buffers()))


@pytest.mark.parametrize("text", BOTH)
def test_batchnorm_remembers_the_clean_pass_last(text, model, batch):
    x, y = batch
    moved = moved_by(text, model, x, y)
    conv, norm = model.body.conv1, model.body.bn1
    mean = norm.running_mean.clone()
    for images in (moved, x):
        mean = 0.9 * mean + 0.1 * conv(model.normalize(images)).mean((0, 2, 3)).detach()
    *_, net = backward(text, model, x, y)
    torch.testing.assert_close(net.body.bn1.running_mean, mean)


def test_at_beta_zero_both_are_standard_training(model, batch):
    model.eval()
    standard = F.cross_entropy(model(batch[0]), batch[1])
    wanted = torch.autograd.grad(standard, list(model.parameters()))
    for text in BOTH:
        objective = Recipe.build(parse(text.partition(":")[0] + ":beta=0")).objective
        step = step_of(model, *batch)
        passes = Passes(model, {"clean": step.x, **objective.crafted(step)})
        loss = objective.loss(step, passes).mean()
        torch.testing.assert_close(loss, standard)
        torch.testing.assert_close(torch.autograd.grad(loss, list(model.parameters())), wanted)


def test_with_labels_rst_is_trades_but_for_the_order_of_the_passes(model, batch):
    ours, theirs = (backward(f"{name}:steps=2", model, *batch) for name in ("rst", "trades"))
    torch.testing.assert_close(ours[:2], theirs[:2])
    gap = ours[2].body.bn1.running_mean - theirs[2].body.bn1.running_mean
    assert gap.abs().max() > 1e-6


def test_with_sigma_zero_the_kl_is_zero(model, batch):
    x, y = batch
    loss, gradients, _ = backward("rst-stab:sigma=0", model, x, y)
    standard, wanted, _ = backward("standard", model, x, y)
    torch.testing.assert_close(loss, standard)
    torch.testing.assert_close(gradients, wanted)


def test_training_noise_stays_in_the_box(model):
    x = torch.full((300, 1, 8, 8), 0.5).double()
    noisy = moved_by("rst-stab", model, x, torch.zeros(300, dtype=torch.long))
    assert (noisy.min(), noisy.max()) == (0, 1)
    inside = (noisy > 0) & (noisy < 1)
    assert inside.double().mean().item() == pytest.approx(0.9545, abs=0.005)  # two sigma
    assert (noisy - x)[inside].mean().item() == pytest.approx(0, abs=0.005)


@pytest.mark.parametrize("text", BOTH)
@pytest.mark.parametrize("modifier", ["label-smoothing", "he:margin=0.2"])
def test_a_changed_criterion_ignores_unlabelled_examples(text, modifier, model, batch):
    x, y = batch
    recipe = Recipe.build(parse(f"{text}+{modifier}"))
    net = recipe.prepare(model).eval()
    step = step_of(net, x, torch.where(torch.arange(6) < 4, y, -100))
    step = replace(step, criterion=recipe.modifiers[0].criterion(step.criterion))
    passes = Passes(net, {"clean": x, **recipe.objective.crafted(step)})
    drift = kl(passes[NAMES[text]], passes["clean"]).mean()
    expected = step.criterion(passes["clean"][:4], y[:4]).mean() + 6 * drift
    torch.testing.assert_close(recipe.objective.loss(step, passes).mean(), expected)
