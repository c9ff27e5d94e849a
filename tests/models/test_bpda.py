"""BPDA: exact forward pass, the surrogate's gradient backward, and an attack on a quantiser."""

import pytest
import torch
from torch import nn

from robustbench_cli.attacks import ATTACKS
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.evaluation.batch_attack import attack_batch
from robustbench_cli.evaluation.rewritten_models import rewritten_search_model
from robustbench_cli.models.bpda import bpda


def rounded(x):
    """Round to eight grey levels; the gradient is zero everywhere."""
    return (7 * x).round() / 7


class Blocks(nn.Module):
    """JPEG's quantisation without files: coarse steps in a rotated basis of 2x2 blocks."""

    def forward(self, x):
        basis = torch.tensor([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 2
        blocks = nn.functional.pixel_unshuffle(x, 2).movedim(1, -1) @ basis.to(x)
        return nn.functional.pixel_shuffle(
            ((6 * blocks).round() / 6 @ basis.to(x)).movedim(-1, 1), 2
        )


def gradient(module, x, weight):
    x = x.clone().requires_grad_()
    (module(x) * weight).sum().backward()
    return x.grad


@pytest.mark.parametrize("exact", [rounded, Blocks()])
def test_forward_is_exact_to_the_bit(exact):
    x = torch.rand(5, 1, 8, 8)
    # A surrogate far from the module: adding and subtracting it would leave its rounding behind.
    for surrogate in (None, lambda x: 1000 * torch.sin(x)):
        assert torch.equal(bpda(exact, surrogate)(x), exact(x))
        assert torch.equal(bpda(exact, surrogate)(x.requires_grad_()), exact(x))


def test_gradient_is_the_surrogate_s():
    x, weight = torch.rand(2, 5, 1, 8, 8)
    assert gradient(rounded, x, weight).abs().max() == 0
    assert torch.equal(gradient(bpda(rounded), x, weight), weight)
    smooth = nn.Conv2d(1, 1, 3, padding=1)
    expected = gradient(smooth, x, weight)
    assert torch.equal(gradient(bpda(rounded, smooth), x, weight), expected)


def test_modules_inside_are_found_and_frozen_with_the_model():
    inner, smooth = nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1)
    model = bpda(inner, smooth).eval().requires_grad_(False)
    assert len(list(model.parameters())) == 4
    assert not inner.training
    assert not smooth.weight.requires_grad


def test_a_surrogate_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"surrogate returns \(2, 1, 4, 4\)"):
        bpda(rounded, nn.AvgPool2d(2))(torch.rand(2, 1, 8, 8))


def test_a_traced_model_keeps_the_gradient():
    """Folding BatchNorm traces the model; what a trace does not know it drops without a word."""
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 3))
    model = nn.Sequential(bpda(Blocks()), net).eval()
    x = torch.rand(4, 1, 8, 8)
    with torch.no_grad():
        model(x)
        lens, notes = rewritten_search_model(model, x)
        traced = torch.fx.symbolic_trace(nn.Sequential(bpda(rounded), net))
    for other, same in (
        (lens.model, model),
        (traced, nn.Sequential(bpda(rounded), net)),
    ):
        found = gradient(other, x, 1.0)
        assert found.abs().max() > 0
        torch.testing.assert_close(found, gradient(same, x, 1.0), rtol=0.05, atol=0.01)
    assert isinstance(notes, list)


@pytest.mark.parametrize("exact", [rounded, Blocks()])
def test_pgd_through_the_surrogate_breaks_the_quantised_model(exact, digits_model):
    net, x, y = digits_model

    class Plain(nn.Module):
        def forward(self, z):
            return exact(z)

    def broken(first):
        pgd = ATTACKS.build(Spec("pgd", {"steps": 10, "start": "clean"}))
        noise = Noise(0, torch.arange(len(y)))
        return attack_batch(
            nn.Sequential(first, net), x, y, pgd, Threat("Linf", 0.25), noise
        ).broken

    hidden, shown = broken(Plain()), broken(bpda(exact))
    wrong = net(exact(x)).argmax(1) != y
    assert torch.equal(hidden, wrong)
    assert shown.sum() >= hidden.sum() + 10
