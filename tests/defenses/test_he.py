"""Hypersphere embedding: cosine logits, a margin for training only, and the scales."""

import copy

import pytest
import torch
import torch.nn.functional as F

from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.losses import cross_entropy
from robustbench_cli.core.threat import Threat
from robustbench_cli.defenses import Recipe, parse
from robustbench_cli.defenses._step import Passes, Step
from robustbench_cli.defenses.he import HE, CosineHead


def test_outputs_are_cosines_whatever_the_norms():
    linear = torch.nn.Linear(16, 5).double()
    head, z = CosineHead(linear, 1.0), torch.randn(7, 16).double()
    out = head(z)
    assert out.abs().max() <= 1 + 1e-9
    torch.testing.assert_close(head(z * 13), out)
    head.weight.data[2] *= 9
    torch.testing.assert_close(head(z), out)
    leaf = z.clone().requires_grad_()
    head(leaf).sum().backward()
    assert (leaf.grad * leaf).sum(1).abs().max() < 1e-9  # orthogonal to z


def test_the_criterion_is_the_cosface_formula():
    cos, y = torch.rand(6, 4).double() * 2 - 1, torch.tensor([0, 1, 2, 3, 0, 1])
    ours = HE(scale=10, margin=0.3).criterion(cross_entropy)(10 * cos, y)
    for value, row, label in zip(ours, cos, y, strict=True):
        true = torch.exp(10 * (row[label] - 0.3))
        rest = sum(torch.exp(10 * row[k]) for k in range(4) if k != label)
        assert value.item() == pytest.approx(-torch.log(true / (true + rest)).item())


def test_no_margin_and_scale_one_is_cross_entropy_on_cosines():
    cos, y = torch.randn(6, 4).double(), torch.tensor([0, 1, 2, 3, 0, 1])
    ours = HE(scale=1, margin=0).criterion(cross_entropy)(cos, y)
    torch.testing.assert_close(ours, F.cross_entropy(cos, y, reduction="none"))


def test_the_margin_never_reaches_the_attack(model, batch):
    x, y = batch
    found = []
    for margin in (0.0, 0.5):
        torch.manual_seed(0)
        recipe = Recipe.build(parse(f"pgd-at:attack_mode=eval+he:margin={margin}"))
        net = model if hasattr(model.head, "scale") else recipe.prepare(model)
        step = Step(
            model=net.eval(), x=x, y=y, threat=Threat("Linf", 0.1), noise=Noise(0, torch.arange(6))
        )
        found.append(recipe.objective.perturb(step))
    assert torch.equal(*found)


def test_alp_pairs_cosines_under_he(model, batch):
    """The official pairing is on cos, not on s cos: the penalty must not grow with s squared."""
    x, y = batch
    values = []
    for scale in (1, 20):
        torch.manual_seed(0)
        recipe = Recipe.build(parse(f"alp:weight=1+he:scale={scale},margin=0"))

        net = recipe.prepare(copy.deepcopy(model)).eval()

        step = Step(
            model=net,
            x=x,
            y=y,
            threat=Threat("Linf", 0.1),
            noise=Noise(0, torch.arange(6)),
            criterion=lambda logits, _: 0 * logits.sum(1),
        )
        passes = Passes(net, {"clean": x, "adv": x.flip(0)})
        values.append(recipe.objective.loss(step, passes).sum())
    torch.testing.assert_close(*values)


def test_evaluation_uses_the_training_scale_unless_the_paper_s_is_asked_for(model):
    for text, expected in (("trades+he", 15.0), ("trades+he:eval_scale=1", 1.0)):
        recipe = Recipe.build(parse(text))

        net = recipe.prepare(copy.deepcopy(model))
        assert net.head.scale == 15.0
        recipe.deploy(net)
        assert net.head.scale == expected


def test_a_last_layer_of_zeros_is_initialised_anew():
    linear = torch.nn.Linear(8, 3)
    torch.nn.init.zeros_(linear.weight)
    assert CosineHead(linear, 1.0)(torch.randn(4, 8)).abs().max() > 0
