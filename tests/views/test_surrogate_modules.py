"""Parts of a model that stop the gradient are found by hooks, and stand-ins carry it on."""

import numpy as np
import pytest
import torch
from torch import nn

from robustbench_cli.views._gaps import Bridged, Gap, find_gaps
from robustbench_cli.views._gradients import margin_gradient
from robustbench_cli.views._sites import ENTRANCE, Site
from robustbench_cli.views._surrogates import linear, passed_through, small_net
from robustbench_cli.views.smooth_activations import SmoothActivations
from robustbench_cli.views.straight_through import StraightThrough
from robustbench_cli.views.surrogate_modules import SurrogateModules

MARKS = np.linspace(0.05, 0.95, 10, dtype=np.float32)
ORDER = np.random.default_rng(0).permutation(64)


class Killed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        return torch.zeros_like(grad)


class Called(nn.Module):
    """A function as a module."""

    def __init__(self, call):
        super().__init__()
        self.call = call

    def forward(self, x):
        return self.call(x)


def by_numpy(x, change):
    return torch.from_numpy(change(x.detach().numpy())) + 0 * x.sum()


def thermometer(x):
    """Bits (B, 64, 10)."""
    return by_numpy(x, lambda a: (a.reshape(len(a), -1, 1) > MARKS).astype(np.float32))


def one_hot(x):
    """Channels (B, 16, 8, 8), by a table."""
    table = torch.eye(16)
    return table[(15 * x).round().long().squeeze(1)].permute(0, 3, 1, 2) + 0 * x.sum()


def from_levels(channels):
    return (channels * torch.arange(16.0)[:, None, None]).sum(1, keepdim=True) / 15


CODES = {
    "killed": (Killed.apply, lambda c: c),
    "thermometer": (thermometer, lambda c: c.mean(-1).view(-1, 1, 8, 8)),
    "one-hot": (one_hot, from_levels),
    "permuted": (
        lambda x: by_numpy(x, lambda a: a.reshape(len(a), -1)[:, ORDER].reshape(a.shape)),
        lambda c: c.flatten(1)[:, np.argsort(ORDER)].view_as(c),
    ),
}
"""Codes of an image that have no gradient, and how they are read."""


@pytest.fixture
def coded(digits_model):
    """A model that codes its images as a module does, and its images."""
    net, x, y = digits_model

    def make(code, function=False):
        encode, decode = CODES[code]
        if function:
            return Called(lambda z: nn.Sequential(Called(decode), net)(encode(z))), x, y
        return nn.Sequential(Called(encode), Called(decode), net).eval(), x, y

    return make


@pytest.mark.parametrize("code", CODES)
def test_the_part_without_a_gradient_is_found_and_replaced(code, coded, subject):
    model, x, y = coded(code)
    made = subject(model, x, y)
    assert made.gradients.unusable == 1
    (gap,) = find_gaps(model, None, made, 3).found
    assert gap == Gap(Site("0", 0, "in"), Site("0", 0, "out"))
    view = SurrogateModules().build(made)
    assert view.gaps == (gap,)
    assert made.gradients_of(view).unusable == 0
    assert made.gradients_of(view).agreement > 0.4
    assert torch.equal(view(x), model(x))
    assert torch.equal(view(x.clone().requires_grad_()).detach(), model(x))


def test_what_only_a_fitted_stand_in_can_follow(coded, subject):
    """The permutation keeps the shape, and the bits do not: the identity is wrong or impossible."""
    for code in ("thermometer", "permuted"):
        model, x, y = coded(code)
        made = subject(model, x, y)
        for view in (StraightThrough(), SmoothActivations()):
            other = view.build(made)
            assert other is None or made.gradients_of(other).agreement < 0.3, (code, view)


class Deep(nn.Module):
    """A net whose features a function of its own rounds, and whose logits another one."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        features = by_numpy(self.net.body(self.net.normalize(x)), lambda a: np.round(4 * a) / 4)
        return by_numpy(self.net.head(features), lambda a: np.round(4 * a) / 4)


def test_gaps_between_modules_are_found_one_after_the_other(digits_model, subject):
    net, x, y = digits_model
    model = Deep(net)
    made = subject(model, x, y)
    gaps = find_gaps(model, None, made, 3)
    assert gaps.complete
    first, second = gaps.found
    assert first.source.module.startswith("net.body")
    assert first.target == Site("net.head", 0, "in")
    assert second == Gap(Site("net.head", 0, "out"), Site("", 0, "out"))
    assert find_gaps(model, None, made, 1) == ((first,), False)
    both = Bridged(model, None, {first: nn.Identity(), second: nn.Identity()})
    assert made.gradients_of(both).agreement > 0.8
    own, found = (margin_gradient(each, x, y).flatten(1) for each in (net, both))
    assert torch.cosine_similarity(own, found).median() > 0.9


def test_a_sound_net_has_no_gap(digits_model, subject):
    net, x, y = digits_model
    assert find_gaps(net, None, subject(net, x, y), 3) == ((), True)


def test_a_model_that_switches_gradients_off_is_searched_without_that(digits_model, subject):
    net, x, y = digits_model

    class Off(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Sequential(Called(thermometer), Called(CODES["thermometer"][1]), net)

        def forward(self, z):
            with torch.no_grad():
                logits = self.inner(z)
            return logits + 0 * z.sum()

    made = subject(Off(), x, y)
    view = SurrogateModules().build(made)
    assert made.gradients_of(view).agreement > 0.4
    assert torch.equal(view(x), Off()(x))


def test_an_image_s_gradient_does_not_depend_on_its_neighbours(coded, subject):
    model, x, y = coded("one-hot")
    view = SurrogateModules().build(subject(model, x, y))
    together = margin_gradient(view, x, y)
    alone = torch.cat([margin_gradient(view, x[i : i + 1], y[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(alone, together[:4], rtol=1e-4, atol=1e-5)


def test_nothing_is_left_at_the_model(coded, subject):
    model, x, y = coded("killed")
    state = torch.get_rng_state()
    view = SurrogateModules().build(subject(model, x, y))
    margin_gradient(view, x, y)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_linear_map_is_fitted_exactly():
    x = torch.randn(200, 1, 4, 4)
    weight = torch.randn(16, 6)
    wanted = (x.flatten(1) @ weight + 2).view(-1, 2, 3)
    for fit in (linear, passed_through):
        found = fit(x, wanted)
        torch.testing.assert_close(found(x), wanted, rtol=0.01, atol=0.05)
    assert isinstance(passed_through(x, x), nn.Identity)


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 8, 8, 3), (64, 3)])
def test_a_small_net_learns_what_bends(shape):
    x = torch.rand(256, 1, 8, 8)
    bits = torch.sigmoid(20 * (x[..., None] - torch.tensor([0.3, 0.5, 0.7])))  # (B, 1, 8, 8, 3)
    wanted = (bits[:, 0].movedim(-1, 1) if len(shape) == 3 and shape[0] == 3 else bits).reshape(
        -1, *shape
    )
    found = small_net(x, wanted)(x)
    assert found.shape == wanted.shape
    error = (found - wanted).square().mean() / wanted.var()
    assert error < (0.1 if len(shape) > 2 else 0.5)


def test_the_images_are_where_a_search_begins(digits_model, subject):
    net, x, y = digits_model
    made = subject(nn.Sequential(net, Called(lambda z: z)), x, y)
    assert find_gaps(made.model, None, made, 3).found == ()
    model = Called(lambda z: net(Killed.apply(z)))
    assert find_gaps(model, None, subject(model, x, y), 3).found[0].source == ENTRANCE
