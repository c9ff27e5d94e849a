"""Every registered input defense: what it returns, and every way back that it declares."""

import re
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import nn

from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Spec
from robustbench_cli.input_defenses import INPUT_DEFENSES, Backward
from robustbench_cli.models.defended import DefendedModel
from robustbench_cli.models.keyed_draws import keyed_draws

PAGE = Path(__file__).parents[2] / "docs" / "input-defenses.md"
NAMES = INPUT_DEFENSES.names()


def built(name):
    return INPUT_DEFENSES.build(Spec(name))


@pytest.fixture(params=NAMES)
def defense(request):
    return built(request.param)


@pytest.fixture
def noise():
    return Noise(0, torch.arange(24))


def test_the_defenses_that_are_known_are_there():
    known = {"lgs", "watermark", "jpeg", "bit-depth", "median", "total-variation", "resize-pad"}
    assert known <= {*NAMES}


def test_it_says_what_it_hides_and_declares_ways_back(defense):
    assert defense.hides
    assert defense.backwards
    assert len({*defense.backwards}) == len(defense.backwards)
    assert {*defense.backwards} <= {*get_args(Backward)}


def test_images_stay_images(defense, cleaned, digits, digits_model):
    x = digits.clone()
    out = cleaned(INPUT_DEFENSES.name_of(defense), x, digits_model[0])
    assert out.shape == x.shape
    assert out.dtype == x.dtype
    assert float(out.min()) >= 0
    assert float(out.max()) <= 1
    assert torch.equal(x, digits)
    assert not torch.equal(out, x)


def test_every_way_back_has_the_same_values_and_a_gradient(defense, digits_model, noise):
    net, x, y = digits_model
    found = {}
    for backward in defense.backwards:
        model, leaf = DefendedModel(net, [defense], backward).eval(), x.clone().requires_grad_()
        with keyed_draws(model, noise):
            logits = model(leaf)
        with keyed_draws(model, noise), torch.no_grad():
            assert torch.equal(model(x), logits)
        with keyed_draws(model, noise), torch.inference_mode():
            assert torch.equal(model(x.clone()), logits)
        (found[backward],) = torch.autograd.grad(logits.gather(1, y[:, None]).sum(), leaf)
        assert found[backward].isfinite().all()
        assert found[backward].flatten(1).any(1).float().mean() > 0.9
        with keyed_draws(first := DefendedModel(net, [defense]).eval(), noise):
            assert torch.equal(logits, first(x))
    grads = [*found.values()]
    for i, one in enumerate(grads):
        assert all(not torch.equal(one, other) for other in grads[:i])


def test_an_image_is_cleaned_alone_as_it_is_among_others(defense, digits_model, noise):
    net, x, _ = digits_model
    model = DefendedModel(net, [defense]).eval()
    with keyed_draws(model, noise):
        whole = model(x)
    turned = torch.arange(24).flip(0)[:7]
    with keyed_draws(model, noise.only(turned)):
        torch.testing.assert_close(model(x[turned]), whole[turned], atol=1e-4, rtol=1e-4)


def test_only_what_says_so_is_random(defense, digits_model):
    net, x, _ = digits_model
    model = DefendedModel(net, [defense]).eval()
    assert torch.equal(model(x), model(x)) != defense.randomised


def test_straight_through_is_the_identity(digits):
    sums = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    straight = [name for name in NAMES if "straight-through" in built(name).backwards]
    assert len(straight) >= 5
    for name in straight:
        leaf = digits.clone().requires_grad_()
        DefendedModel(sums, [built(name)], "straight-through")(leaf)[:, 1].sum().backward()
        expected = sums[1].weight[1].view(1, 1, 8, 8).expand_as(digits)
        assert torch.equal(leaf.grad, expected), name


def test_the_example_of_the_documentation_is_one(digits):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    try:
        exec(compile(code, str(PAGE), "exec"), {"__name__": "example"})
        model, leaf = DefendedModel(nn.Flatten(), [built("inverted")]), digits.clone()
        out = model(leaf.requires_grad_())
        assert torch.equal(out, (((1 - digits) * 255).round() / 255).flatten(1))
        out.sum().backward()
        assert torch.equal(leaf.grad, -torch.ones_like(digits))
    finally:
        INPUT_DEFENSES._entries.pop("inverted", None)
