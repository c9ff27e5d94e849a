"""PGD-AT's inner problem on models whose exact maximiser is known."""

import pytest
import torch
import torch.nn.functional as F

from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.model_modes import borrowed
from robustbench_cli.core.threat import Threat
from robustbench_cli.defenses import Recipe, parse
from robustbench_cli.defenses._step import Passes, Step

EPS = 0.1
STARTS = ["clean", "uniform", "gauss", "unclipped"]


class Plane(torch.nn.Module):
    """A linear model of two classes: the sign of the gradient is the same everywhere."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(64).double() / 8)

    def forward(self, x):
        z = x.flatten(1) @ self.weight - self.weight.sum() / 2
        return torch.stack([z, -z], 1)


def step_of(model, x, y):
    noise = Noise(0, torch.arange(len(x)))
    return Step(model=model, x=x, y=y, threat=Threat("Linf", EPS), noise=noise)


def images():
    """Return images, some with pixels at the border of the box, where a full step is clipped."""
    x = (1.2 * torch.rand(40, 1, 8, 8).double() - 0.1).clamp(0, 1)
    return x, torch.arange(40) % 2


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("step", [2.0, 3.5])
def test_one_step_of_two_radii_reaches_the_maximiser_from_everywhere(start, step):
    model, (x, y) = Plane(), images()
    objective = Recipe.build(parse(f"pgd-at:steps=1,step={step},start={start}")).objective
    found = objective.perturb(step_of(model, x, y))
    away = torch.where(y == 0, -1.0, 1.0).double()[:, None] * model.weight.detach().sign()
    expected = (x + EPS * away.view_as(x)).clamp(0, 1)
    torch.testing.assert_close(found, expected)
    assert ((found - x).abs() <= EPS + 1e-6).all()
    assert ((found >= 0) & (found <= 1)).all()


@pytest.mark.parametrize("start", STARTS)
def test_the_loss_there_is_the_exact_maximum(start):
    """log(1 + exp(-2 m)), m being the margin less what the ball takes away, pixel by pixel."""
    model, (x, y) = Plane(), images()
    step = step_of(model, x, y)
    objective = Recipe.build(parse(f"pgd-at:steps=1,step=2,start={start}")).objective
    loss = objective.loss(step, Passes(model, {"adv": objective.perturb(step)}))
    weight = model.weight.detach()
    sides = torch.where(y == 0, 1.0, -1.0).double()
    low, high = ((x + move).clamp(0, 1).flatten(1) for move in (-EPS, EPS))
    worst = torch.minimum(low * (sides[:, None] * weight), high * (sides[:, None] * weight)).sum(1)
    margin = worst - sides * weight.sum() / 2
    torch.testing.assert_close(loss.detach(), (-2 * margin).exp().log1p())


def test_one_step_on_a_network_is_the_signed_gradient_at_the_clean_images(model, batch):
    x, y = batch
    objective = Recipe.build(parse("pgd-at:steps=1,step=2,start=clean,attack_mode=eval")).objective
    with borrowed(model, "eval"):
        found = objective.perturb(step_of(model, x, y))
        at = x.clone().requires_grad_()
        (grad,) = torch.autograd.grad(F.cross_entropy(model(at), y), at)
    torch.testing.assert_close(found, (x + EPS * grad.sign()).clamp(0, 1))


def test_a_black_pixel_is_at_0_or_eps_after_a_clipped_start_and_anywhere_after_an_unclipped_one():
    """Fast-AT's step is longer than the way from 0 to eps: what a start below 0 would shorten."""
    model, x, y = Plane(), torch.zeros(20, 1, 8, 8).double(), torch.arange(20) % 2
    step = step_of(model, x, y)
    clipped, spread = (
        Recipe.build(parse(f"fast-at:start={start}")).objective.perturb(step)
        for start in ("uniform", "unclipped")
    )
    assert ((clipped == 0) | (clipped == EPS)).all()
    begun = EPS * (2 * step.noise.fork("start").uniform(x) - 1)
    away = torch.where(y == 0, -1.0, 1.0).double()[:, None] * model.weight.detach().sign()
    moved = begun + 1.25 * EPS * away.view_as(x)
    torch.testing.assert_close(spread, moved.clamp(0, EPS))
    assert ((spread > 0) & (spread < EPS)).any()
