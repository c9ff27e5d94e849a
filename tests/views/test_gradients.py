"""Gradients that can be followed, and those that cannot, told apart on a few images."""

import torch
from torch import nn

from robustbench_cli.core.same_draws import same_draws
from robustbench_cli.core.threat import Threat
from robustbench_cli.views._gradients import margin_gradient


class Before(nn.Module):
    """A net behind a change of its images."""

    def __init__(self, net, change):
        super().__init__()
        self.net, self.change = net, change

    def forward(self, x):
        return self.net(self.change(x))


def killed(x):
    return x.detach() + 0 * x


def sawtooth(x):
    return x + 0.03 * torch.sin(200 * x)


def rounded(x):
    return (15 * x).round() / 15 + 1e-4 * x


def test_an_honest_net_has_sound_gradients(digits_model, subject):
    net, x, y = digits_model
    quality = subject(net, x, y).gradients
    assert quality.sound
    assert quality.unusable == 0
    assert quality.agreement > 0.95
    assert subject(net, x, y, Threat("L2", 0.5)).gradients.sound
    assert subject(Before(net, lambda z: 2 * z / 2), x, y).gradients.sound


def test_useless_gradients_are_not(digits_model, subject):
    net, x, y = digits_model
    for change in (killed, sawtooth, rounded):
        assert not subject(Before(net, change), x, y).gradients.sound, change
    assert subject(Before(net, killed), x, y).gradients.unusable == 1
    assert subject(Before(net, lambda z: z.sqrt() ** 2), x, y).gradients.unusable > 0.5


def test_gradients_that_do_not_exist_are_zeros(digits_model, subject):
    net, x, y = digits_model

    class Detached(nn.Module):
        def forward(self, z):
            return net(z.detach())

    assert not margin_gradient(Detached(), x, y).any()
    assert not subject(Detached(), x, y).gradients.sound


def test_a_view_is_measured_against_the_model_s_answers(digits_model, subject):
    net, x, y = digits_model
    seen = subject(Before(net, killed), x, y)
    assert seen.gradients_of(net).agreement > 0.95
    assert seen.gradients.agreement == 0


def test_a_random_model_draws_the_same_numbers_twice(digits_model, subject):
    net, x, y = digits_model
    noisy = Before(net, lambda z: z + 0.3 * torch.randn_like(z))
    state = torch.get_rng_state()
    with same_draws():
        first = noisy(x)
    with same_draws():
        assert torch.equal(noisy(x), first)
    assert subject(noisy, x, y).gradients.agreement > 0.9
    assert torch.equal(torch.get_rng_state(), state)
