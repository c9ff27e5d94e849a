"""The adversarial loss along directions in weight space."""

import pytest
import torch
import torch.nn.functional as F

from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.gradient_ascent import Ascent, ascend
from robustbench_cli.core.losses import cross_entropy
from robustbench_cli.core.threat import Threat
from robustbench_cli.data import Split
from robustbench_cli.figures._landscape_data import (
    adversarial_loss,
    direction,
    landscape,
    move_along,
)

LINF = Threat(eps=0.1)


@pytest.fixture
def data():
    pixels = torch.randint(0, 256, (12, 1, 8, 8), dtype=torch.uint8)
    return Split(pixels, torch.arange(12) % 4, ("a", "b", "c", "d"))


@pytest.fixture
def net(model):
    """Return a float32 network, left in train mode."""
    return model.float().train()


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_every_filter_of_a_direction_is_as_long_as_the_model_s(net):
    step = direction(net, 0, 0)
    weights = dict(net.named_parameters())
    for name, drawn in step.items():
        for row, filter_ in zip(drawn, weights[name].detach(), strict=True):
            assert float(row.norm()) == pytest.approx(float(filter_.norm()), rel=1e-5)


def test_biases_and_batchnorm_have_no_direction(net):
    flat = {name for name, weight in net.named_parameters() if weight.ndim < 2}
    assert flat
    assert direction(net, 0, 0).keys() == {name for name, _ in net.named_parameters()} - flat


def test_directions_are_keyed(net):
    first, again = direction(net, 0, 0), direction(net, 0, 0)
    name = "body.conv2.weight"
    assert torch.equal(first[name], again[name])
    for other in (direction(net, 0, 1), direction(net, 1, 0)):
        cosine = F.cosine_similarity(first[name].flatten(), other[name].flatten(), dim=0)
        assert abs(float(cosine)) < 0.3
    unit = first[name].flatten(1) / first[name].flatten(1).norm(dim=1, keepdim=True)
    assert abs(float(unit[0] @ unit[1])) < 0.6  # filters do not share their numbers


def test_the_weights_move_and_come_back_bit_for_bit_even_after_an_error(net):
    before, step = state(net), direction(net, 0, 0)

    def fails():
        with move_along(net, step, 0.7):
            for name, weight in net.named_parameters():
                expected = before[name] + 0.7 * step[name] if name in step else before[name]
                assert torch.allclose(weight, expected, rtol=1e-6, atol=1e-7)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert all(torch.equal(now, before[name]) for name, now in net.state_dict().items())


def test_at_zero_it_is_the_model_s_own_pgd_loss(net, data):
    before = state(net)
    (losses,) = landscape(net, data, LINF, 0, [-0.5, 0.0, 0.5], 1)
    net.eval()
    x, rows = data.images(slice(None)), torch.arange(12)
    climb = Ascent(steps=10, step=0.25)
    x_adv = ascend(net, cross_entropy, data.y, x, LINF, Noise(0, rows, "landscape"), climb)
    with torch.no_grad():
        assert losses[1] == pytest.approx(float(F.cross_entropy(net(x_adv), data.y)), rel=1e-6)
        assert losses[1] > float(F.cross_entropy(net(x), data.y))  # something was attacked
    assert all(torch.equal(now, before[name]) for name, now in net.state_dict().items())


def test_examples_are_made_for_the_moved_model(net, data):
    alpha = 0.5
    (losses,) = landscape(net, data, LINF, 0, [alpha], 1)
    step = direction(net, 0, 0)
    with torch.no_grad():
        for name, weight in net.named_parameters():
            weight.add_(alpha * step.get(name, torch.zeros_like(weight)))
    net.eval()
    assert losses[0] == pytest.approx(adversarial_loss(net, data, LINF, 0), rel=1e-5)


def test_the_model_is_given_back_as_it_was(net, data):
    training = [module.training for module in net.modules()]
    wanted = [weight.requires_grad for weight in net.parameters()]
    told = []
    found = landscape(net, data, LINF, 0, [0.0, 1.0], 2, lambda *done: told.append(done))
    assert [module.training for module in net.modules()] == training
    assert [weight.requires_grad for weight in net.parameters()] == wanted
    assert all(weight.grad is None for weight in net.parameters())
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert found[0][0] == found[1][0]  # no move, whatever the direction
    assert found[0][1] != found[1][1]
