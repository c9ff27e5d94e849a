"""Training for smoothed classifiers: Gaussian augmentation, and SmoothAdv against its formulas."""

from contextlib import ExitStack

import pytest
import torch
import torch.nn.functional as F

from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.threat import Threat
from robustbench_cli.defenses import Recipe, parse
from robustbench_cli.defenses._step import Passes, Step
from robustbench_cli.defenses.smooth_adv import SmoothAdv, SmoothAdvDDN


def step_of(model, batch, eps=0.5, norm="L2"):
    x, y = batch
    return Step(
        model=model, x=x, y=y, classes=4, threat=Threat(norm, eps), noise=Noise(0, torch.arange(6))
    )


def noises(step, sigma, draws):
    """The noise of each copy (draws, B, C, H, W)."""
    each = [step.noise.fork("noise").fork(i).normal(step.x) for i in range(draws)]
    return sigma * torch.stack(each)


def trained(text, step):
    """The loss of one update, and its gradients."""
    with ExitStack() as moved:
        loss = Recipe.build(parse(text)).backward(step, moved).loss
    return loss, [p.grad for p in step.model.parameters()]


def test_the_noise_is_gaussian_and_is_not_clipped(model, batch):
    step = step_of(model.train(), batch)
    noisy = Recipe.build(parse("smoothing:sigma=0.5")).objective.crafted(step)["noisy"]
    noise = noisy - step.x
    assert float(noise.std()) == pytest.approx(0.5, rel=0.1)
    assert noisy.min() < 0
    assert noisy.max() > 1
    loss, _ = trained("smoothing:sigma=0.5", step)
    expected = F.cross_entropy(model(noisy), step.y)
    torch.testing.assert_close(loss, expected)


def by_hand(model, step, noise, steps, eps):
    """PGD on the mean probability over noisy copies, as in the paper's algorithm 1."""
    delta = torch.zeros_like(step.x)
    for _ in range(steps):
        delta.requires_grad_()
        p = torch.stack([model(step.x + delta + each).softmax(1) for each in noise]).mean(0)
        loss = -p.gather(1, step.y[:, None]).log().sum()
        (grad,) = torch.autograd.grad(loss, delta)
        grad = grad / grad.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        delta = delta.detach() + 2 / steps * eps * grad
        length = delta.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        delta = delta * (eps / length).clamp(max=1)
        delta = (step.x + delta).clamp(0, 1) - step.x
    return step.x + delta


@pytest.mark.parametrize("draws", [1, 3])
def test_pgd_climbs_the_mean_probability_and_the_net_learns_from_the_same_copies(
    model, batch, draws
):
    model.eval()
    step = step_of(model, batch, eps=0.4)
    objective = SmoothAdv(steps=4, step=0.5, sigma=0.3, draws=draws)
    found, noise = objective.crafted(step), noises(step, 0.3, draws)
    torch.testing.assert_close(found["adv"], by_hand(model, step, noise, 4, 0.4))
    torch.testing.assert_close(found["noisy"], (found["adv"] + noise).flatten(0, 1))
    losses = objective.loss(step, Passes(model, {"clean": step.x, **found}))
    each = [F.cross_entropy(model(found["adv"] + n), step.y, reduction="none") for n in noise]
    torch.testing.assert_close(losses, torch.stack(each).mean(0))


def test_a_net_may_learn_from_the_first_copy_alone(model, batch):
    step = step_of(model.eval(), batch)
    objective = SmoothAdv(steps=2, step=1, draws=3, all_draws=False)
    found = objective.crafted(step)
    first = noises(step, 0.25, 3)[0]
    torch.testing.assert_close(found["noisy"], found["adv"] + first)


def test_with_one_step_towards_nowhere_it_is_gaussian_augmentation(model, batch):
    """At a radius of nearly nothing both learn from noisy copies; with the same noise, the same."""
    step = step_of(model.eval(), batch, eps=1e-9)
    objective = SmoothAdv(draws=1, sigma=0.25)
    found = objective.crafted(step)
    torch.testing.assert_close(found["noisy"], step.x + noises(step, 0.25, 1)[0])


def test_ddn_keeps_the_nearest_image_that_fools_the_smoothed_classifier(model, batch):
    model.eval()
    x, y = batch
    with torch.no_grad():
        y = model(x).argmax(1)  # right on all: there is something to break
    step = step_of(model, (x, y), eps=2.0)
    objective = SmoothAdvDDN(steps=20, draws=2, sigma=0.05)
    adv, noise = objective.crafted(step)["adv"], noises(step, 0.05, 2)
    away = (adv - x).flatten(1).norm(dim=1)
    p = torch.stack([model(adv + each).softmax(1) for each in noise]).mean(0)
    moved = away > 0
    assert moved.sum() >= 4
    assert (p.argmax(1) != y)[moved].all()
    assert (away <= 2.0 + 1e-6).all()
    levels = adv * 255
    torch.testing.assert_close(levels, levels.round(), atol=1e-6, rtol=0)
    # Nearer than PGD's, which goes to the border.
    pgd = SmoothAdv(draws=2, sigma=0.05).crafted(step)["adv"]
    assert (away < (pgd - x).flatten(1).norm(dim=1) + 1e-9)[moved].all()


def test_ddn_leaves_images_alone_that_are_misclassified(model, batch):
    model.eval()
    x, _ = batch
    with torch.no_grad():
        y = (model(x).argmax(1) + 1) % 4
    found = SmoothAdvDDN(draws=1, sigma=1e-6).crafted(step_of(model, (x, y)))
    assert torch.equal(found["adv"], x)


def test_ddn_s_image_is_in_the_ball_of_any_norm(model, batch):
    step = step_of(model.eval(), batch, norm="Linf", eps=0.05)
    adv = SmoothAdvDDN(draws=1).crafted(step)["adv"]
    assert step.threat.inside(adv, step.x).all()
