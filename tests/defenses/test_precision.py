"""Inner attacks in bfloat16: the first gradient after a Gaussian start is not rounding noise."""

import copy
from dataclasses import replace

import pytest
import torch

from robustbench_cli.core import gradient_ascent
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.gradient_ascent import Ascent, ascend, fixed_logits
from robustbench_cli.core.losses import kl
from robustbench_cli.core.model_modes import borrowed
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.data import Split
from robustbench_cli.data.bank import Bank
from robustbench_cli.defenses import DEFENSES, Adversarial, Modifier, Recipe, parse
from robustbench_cli.defenses._step import Setting, Step
from robustbench_cli.models import Shape

ATTACKING = [n for n in DEFENSES.names() if issubclass(DEFENSES.entry(n).cls, Adversarial)]
GAUSS = [n for n in ATTACKING if DEFENSES.build(Spec(n)).start == "gauss"]
MODIFIERS = [n for n in DEFENSES.names() if issubclass(DEFENSES.entry(n).cls, Modifier)]
RECIPES = [
    *GAUSS,
    *(f"{name}:start=gauss" for name in ATTACKING if name not in GAUSS),
    *(f"trades+{name}" for name in MODIFIERS if name != "early-stopping"),
    "trades+awp+he",
]
"""Every objective that attacks, from a Gaussian start, and every modifier on top of TRADES."""

DIGITS = Shape(1, 8, 8, 10, (0.0,), (1.0,))
THREAT = Threat("Linf", 0.15)


def step_on(net, x, y):
    """A training step whose two teachers are the network itself: no gap hides the rounding."""
    teacher = copy.deepcopy(net).eval().requires_grad_(False)
    return Step(
        model=net,
        x=x,
        y=y,
        classes=10,
        threat=THREAT,
        noise=Noise(0, torch.arange(len(x))),
        epoch=1000,
        teachers=(teacher, teacher),
        bank=Bank(Split((x * 255).byte(), y, tuple("0123456789"))),
    )


def first_gradient(text, digits_model, *, bf16, monkeypatch):
    """The gradient that the first inner step of one batch follows."""
    net, x, y = digits_model
    torch.manual_seed(0)  # heads that a part makes anew
    recipe = Recipe.build(parse(text))
    net = recipe.prepare(copy.deepcopy(net)).train()
    net.requires_grad_(True)
    step, gradients = step_on(net, x, y), []
    net.low_precision = bf16
    setting = Setting(model=net, shape=DIGITS, batch_size=len(x), fresh=lambda: copy.deepcopy(net))
    step = replace(step, auxiliaries=dict(recipe.auxiliaries(setting).items()))
    original = gradient_ascent.gradient

    def recorded(*args):
        gradients.append(original(*args)[1])
        return original(*args)

    with monkeypatch.context() as patched, borrowed(net, recipe.objective.attack_mode):
        patched.setattr(gradient_ascent, "gradient", recorded)
        recipe.objective.crafted(step)
    assert net.low_precision == bf16  # the model is given back as it was
    return gradients[0]


@pytest.mark.parametrize("text", RECIPES)
def test_the_first_step_from_a_gaussian_start_is_the_same_in_bf16(text, digits_model, monkeypatch):
    exact, rounded = (
        first_gradient(text, digits_model, bf16=bf16, monkeypatch=monkeypatch)
        for bf16 in (False, True)
    )
    told = exact != 0
    assert told.float().mean() > 0.5
    assert (exact.sign() == rounded.sign())[told].float().mean() > 0.95


def test_what_has_a_gaussian_start_by_default():
    assert {"trades", "lbgat-trades", "rst", "rslad", "mart", "alp"} <= set(GAUSS)


def test_one_step_in_bf16_climbs_as_far_as_in_float32(digits_model):
    """The inner problem of TRADES, in a ball so small that the divergence is quadratic in it."""
    net, x, _ = digits_model
    net = copy.deepcopy(net)
    climb, noise = Ascent(steps=1, step=1.0, start="gauss"), Noise(0, torch.arange(len(x)))

    def reached(*, bf16):
        net.low_precision = bf16
        x_adv = ascend(net, kl, fixed_logits(net, x), x, Threat("Linf", 0.01), noise, climb)
        net.low_precision = False
        return kl(net(x_adv), net(x)).mean()

    exact, rounded = reached(bf16=False), reached(bf16=True)
    torch.testing.assert_close(rounded, exact, rtol=0.02, atol=0)


def test_only_the_first_gradient_is_exact_and_other_starts_have_none(digits_model, monkeypatch):
    net, x, _ = digits_model
    net = copy.deepcopy(net)
    net.low_precision, seen = True, []
    original = gradient_ascent.gradient

    def recorded(model, *rest):
        seen.append(model.low_precision)
        return original(model, *rest)

    monkeypatch.setattr(gradient_ascent, "gradient", recorded)
    for start in ("gauss", "uniform"):
        climb, noise = Ascent(steps=3, step=0.4, start=start), Noise(0, torch.arange(len(x)))
        ascend(net, kl, fixed_logits(net, x), x, THREAT, noise, climb)
    assert seen == [False, True, True, True, True, True]
    assert net.low_precision
