"""Virtual adversarial training: direction and norm of the perturbation, labelled and extra data."""

import copy
from contextlib import ExitStack
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.model_modes import frozen_batchnorm
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.defenses import DEFENSES, Recipe, parse
from robustbench_cli.defenses._step import Step
from robustbench_cli.models import Classifier


def step_of(model, batch, norm="L2", eps=0.5, extra=None):
    x, y = batch
    noise = Noise(0, torch.arange(len(x)))
    return Step(model=model, x=x, y=y, threat=Threat(norm, eps), noise=noise, extra=extra)


def backward(text, model, batch, extra=None):
    """Return the loss, the gradients, and the network after them."""
    net = copy.deepcopy(model).train()
    with ExitStack() as release:
        trained = Recipe.build(parse(text)).backward(step_of(net, batch, extra=extra), release)
    return trained.loss, [p.grad for p in net.parameters()], net


def linear():
    """Return a linear softmax model, whose KL has a known Hessian."""
    head = torch.nn.Linear(64, 4).double()
    head.weight.data = torch.randn(4, 64).double()
    return Classifier(torch.nn.Identity(), torch.nn.Flatten(), head)


def hessians(model, x):
    """Return W^T (diag(p) - p p^T) W for each image."""
    weight = model.head.weight
    for p in model(x).softmax(1).detach():
        yield (weight.T @ (torch.diag(p) - torch.outer(p, p)) @ weight).detach()


def moves(params, model, x, **where):
    step = step_of(model, (x, torch.zeros(len(x), dtype=torch.long)), **where)
    return DEFENSES.build(Spec("vat", params)).crafted(step)["moved"] - x


def test_the_direction_is_a_power_iteration_on_the_hessian(batch):
    model, x = linear(), batch[0]
    start = Noise(0, torch.arange(6)).fork("direction").normal(x).flatten(1)
    for steps in (1, 2):
        found = moves({"steps": steps, "xi": 1e-5}, model, x).flatten(1)
        for row, d, hessian in zip(found, start, hessians(model, x), strict=True):
            for _ in range(steps):
                d = F.normalize(hessian @ d, dim=0)
            torch.testing.assert_close(row, 0.5 * d, rtol=1e-3, atol=1e-4)


def test_many_iterations_find_the_direction_of_fastest_change(batch):
    model, x = linear(), batch[0]
    found = moves({"steps": 300, "xi": 1e-5}, model, x).flatten(1)
    for row, hessian in zip(found, hessians(model, x), strict=True):
        values, vectors = torch.linalg.eigh(hessian)
        assert values[-1] > 1.02 * values[-2]
        assert abs(float(row @ vectors[:, -1])) == pytest.approx(0.5, rel=1e-3)


@pytest.mark.parametrize(
    ("params", "norm", "eps", "length"),
    [
        ({}, "L2", 0.5, 0.5),
        ({}, "Linf", 0.1, 0.8),  # the corner of the cube: 0.1 * sqrt(64)
        ({}, "L1", 2.0, 2.0),
        ({"radius": 3.0}, "L2", 0.5, 3.0),
    ],
)
def test_the_perturbation_has_its_norm_and_may_leave_the_box(
    params, norm, eps, length, model, batch
):
    found = moves(params, model.eval(), batch[0], norm=norm, eps=eps)
    lengths = found.flatten(1).norm(dim=1)
    torch.testing.assert_close(lengths, torch.full((6,), length).double())
    assert ((batch[0] + found) < 0).any()


def test_a_zero_gradient_gives_no_perturbation():
    model = linear()
    model.head.weight.data.zero_()
    assert not moves({}, model, torch.rand(3, 1, 8, 8).double()).any()


@pytest.mark.parametrize("low", [False, True])
def test_the_finite_difference_is_neither_lost_in_rounding_nor_too_long(low, digits_model):
    net, x, y = digits_model
    exact = copy.deepcopy(net).double().train()
    step = step_of(exact, (x.double(), y))
    fine = DEFENSES.build(Spec("vat", {"xi": 1e-6})).crafted(step)["moved"] - x
    narrow = copy.deepcopy(net).train()
    narrow.low_precision = low

    def cosine(xi):
        vat = DEFENSES.build(Spec("vat", {"xi": xi}))
        found = vat.crafted(replace(step, model=narrow, x=x))["moved"] - x
        return F.cosine_similarity(found.double().flatten(1), fine.flatten(1)).mean()

    assert cosine(1e-2) > 0.99
    assert cosine(1e-6) < 0.7  # the code's, in float32
    assert cosine(1.0) < 0.7
    assert narrow.low_precision is low


def test_loss_and_every_weight_gradient(model, batch):
    """The divergence's gradient does not flow through the predictions it starts from."""
    x, y = batch
    loss, gradients, net = backward("vat:alpha=0.7,radius=2", model, batch)
    reference = copy.deepcopy(model).train()
    with frozen_batchnorm(reference):
        objective = DEFENSES.build(Spec("vat", {"radius": 2}))
        moved = objective.crafted(step_of(reference, batch))["moved"]
    clean = reference(x)
    buffers = {k: v.clone() for k, v in reference.named_buffers()}
    p = clean.softmax(1).detach()
    drift = (p * (p.log() - reference(moved).log_softmax(1))).sum() / 6
    expected = -clean.log_softmax(1)[range(6), y].mean() + 0.7 * drift
    torch.testing.assert_close(loss, expected.detach())
    expected.backward()
    torch.testing.assert_close(gradients, [q.grad for q in reference.parameters()])
    # The running statistics know the labelled pass and no other.
    torch.testing.assert_close(dict(net.named_buffers()), buffers)


def test_with_alpha_zero_or_a_tiny_radius_it_is_standard_training(model, batch):
    standard, wanted, reference = backward("standard", model, batch)
    for text in ("vat:alpha=0", "vat:radius=1e-9"):
        loss, gradients, net = backward(text, model, batch)
        torch.testing.assert_close(loss, standard)
        torch.testing.assert_close(gradients, wanted)
        torch.testing.assert_close(net.state_dict(), reference.state_dict())


@pytest.mark.parametrize("own", [True, False])
def test_a_pool_is_the_unlabelled_batch_and_its_labels_are_not_used(own, model, batch):
    x, y = batch
    extra = torch.tensor([False, True, False, True, True, True])
    y = y if own else torch.where(extra, -100, y)
    loss, gradients, net = backward("vat:alpha=0.7", model, (x, y), extra)
    reference = copy.deepcopy(model).train()
    clean = reference(x[~extra])
    mean = 0.9 * model.body.bn1.running_mean
    mean += 0.1 * model.body.conv1(model.normalize(x[~extra])).mean((0, 2, 3)).detach()
    torch.testing.assert_close(net.body.bn1.running_mean, mean)
    # The move is as if the pool were there alone, with its own examples' noise.
    noise = Noise(0, torch.arange(6)).only(extra)
    alone = replace(step_of(reference, (x[extra], y[extra])), noise=noise)
    with frozen_batchnorm(reference):
        crafted = DEFENSES.build(Spec("vat")).crafted(alone)
        moved = reference(crafted["moved"])
        p = reference(x[extra]).softmax(1).detach()
    drift = (p * (p.log() - moved.log_softmax(1))).sum() / 4
    expected = -clean.log_softmax(1)[range(2), y[~extra]].mean() + 0.7 * drift
    torch.testing.assert_close(loss, expected.detach())
    expected.backward()
    torch.testing.assert_close(gradients, [q.grad for q in reference.parameters()])
