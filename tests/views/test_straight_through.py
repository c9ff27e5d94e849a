import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from robustbench_cli.models.bpda import bpda
from robustbench_cli.views._gradients import margin_gradient
from robustbench_cli.views.smooth_activations import SmoothActivations
from robustbench_cli.views.straight_through import StraightThrough


class Killed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        return torch.zeros_like(grad)


class Scrambled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return 2 * x

    @staticmethod
    def backward(ctx, grad):
        return grad.flip(-1).roll(3, -2)


class SetUp(torch.autograd.Function):
    """The newer style, with a context that is set up apart."""

    @staticmethod
    def forward(x):
        return 2 * x

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, grad):
        return -grad


kept = Killed.apply  # as many model files do: a name that was bound before anything looked


def through_numpy(x):
    return torch.from_numpy(x.detach().cpu().numpy().copy())


def without_gradient(x):
    with torch.no_grad():
        return 1.0 * x


@torch.no_grad()
def decorated(x):
    return 1.0 * x


def inferred(x):
    with torch.inference_mode():
        return 1.0 * x


IDENTITIES = {
    "killed": Killed.apply,
    "kept": lambda x: kept(x),
    "scrambled": lambda x: Scrambled.apply(x) / 2,
    "set up": lambda x: SetUp.apply(x) / 2,
    "detached": lambda x: x.detach() + 0 * x,
    "data": lambda x: x.data + 0 * x,
    "no_grad": lambda x: without_gradient(x) + 0 * x,
    "decorated": lambda x: decorated(x) + 0 * x,
    "inferred": lambda x: inferred(x) + 0 * x,
    "numpy": lambda x: through_numpy(x) + 0 * x,
    "cloned": lambda x: x.clone().detach_() + 0 * x,
}
"""Changes of an image that leave it as it is, and whose gradient is none or wrong."""

QUANTISERS = {
    "rounded": lambda x: (15 * x).round() / 15 + 0 * x,
    "in place": lambda x: (15 * x).round_() / 15 + 0 * x,
    "floored": lambda x: (15 * x + 0.5) // 1 / 15 + 0 * x,
    "division": lambda x: torch.div(15 * x + 0.5, 1, rounding_mode="floor") / 15 + 0 * x,
    "bytes": lambda x: (255 * x).to(torch.uint8).float() / 255 + 0 * x,
    "levels": lambda x: (255 * x).byte() // 16 * 16 / 255 + 0 * x,
    "thermometer": lambda x: (x.unsqueeze(-1) > torch.arange(1, 16) / 16).float().mean(-1) + 0 * x,
    "leaky": lambda x: (15 * x).round() / 15 + 1e-3 * x.flip(-1),
    "sawtooth": lambda x: x - 1.7 * (x % 0.02),
    "signs": lambda x: 0.5 + 0.25 * (x - 0.5).sign() + 0.25 * (x - 0.5) + 0 * x,
    "chosen": lambda x: torch.where(x > 0.5, x + 0.1, x - 0.1).detach() + 0 * x,
}
"""Changes whose gradient is to be that of about the identity."""


class Before(nn.Module):
    def __init__(self, net, change):
        super().__init__()
        self.net, self.change = net, change

    def forward(self, x):
        return self.net(self.change(x))


def gradients(models, x, y):
    return [margin_gradient(model, x, y).flatten(1) for model in models]


@pytest.mark.parametrize("change", IDENTITIES.values(), ids=IDENTITIES)
def test_a_hidden_identity_has_the_net_s_own_gradient(change, digits_model, subject):
    net, x, y = digits_model
    model = Before(net, change)
    made = subject(model, x, y)
    assert not made.gradients.sound
    view = StraightThrough().build(made)
    own, found = gradients([net, view], x, y)
    # Up to a factor: the small side path that a model has beside the hidden one counts, too.
    torch.testing.assert_close(F.normalize(found), F.normalize(own), rtol=0, atol=1e-4)
    assert torch.equal(view(x), model(x))
    assert torch.equal(view(x.clone().requires_grad_()).detach(), model(x))


@pytest.mark.parametrize("change", QUANTISERS.values(), ids=QUANTISERS)
def test_a_quantiser_has_about_the_net_s_gradient(change, digits_model, subject):
    net, x, y = digits_model
    x = (x + 0.02).clamp(0, 1)  # off the grid of the digits, on which quantisers do nothing
    model = Before(net, change)
    made = subject(model, x, y)
    assert not made.gradients.sound
    view = StraightThrough().build(made)
    assert made.gradients_of(view).agreement > made.gradients.agreement + 0.2
    assert torch.equal(view(x.clone().requires_grad_()).detach(), model(x))


def test_sound_models_give_no_reason(digits_model, subject):
    net, x, y = digits_model
    declared = bpda(lambda z: (15 * z).round() / 15)
    honest = {
        "plain": net,
        "clamped": Before(net, lambda z: z.clamp(0, 1)),
        "custom": Before(net, Honest.apply),
        "normalised": Before(net, lambda z: z / z.amax((1, 2, 3), keepdim=True).detach()),
        "declared": nn.Sequential(declared, net),
    }
    for name, model in honest.items():
        for view in (StraightThrough(), SmoothActivations()):
            assert view.build(subject(model, x, y)) is None, name


class Honest(torch.autograd.Function):
    """A square with the gradient of a square."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return 2 * x * grad


class Purified(nn.Module):
    """Improve the image by gradient steps before it is classified."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        z = x.detach()
        with torch.enable_grad():
            for _ in range(2):
                z = z.requires_grad_()
                logits = self.net(z)
                loss = F.cross_entropy(logits, logits.argmax(1), reduction="sum")
                (grad,) = torch.autograd.grad(loss, z)
                z = (z - 0.01 * grad.sign()).clamp(0, 1).detach()
        return self.net(z) + 0 * x.sum()


class PurifiedBackward(Purified):
    """The same by ``backward`` and ``.grad``."""

    def forward(self, x):
        with torch.enable_grad():
            z = x.detach().clone().requires_grad_()
            logits = self.net(z)
            F.cross_entropy(logits, logits.argmax(1), reduction="sum").backward()
        return self.net((z - 0.01 * z.grad.sign()).clamp(0, 1).detach()) + 0 * x.sum()


@pytest.mark.parametrize("kind", [Purified, PurifiedBackward])
def test_purification_is_passed_through(kind, digits_model, subject):
    net, x, y = digits_model
    model = kind(net)
    made = subject(model, x, y)
    assert made.gradients.unusable == 1
    view = StraightThrough().build(made)
    assert made.gradients_of(view).agreement > 0.6
    assert torch.equal(view(x), model(x))


def test_activations_that_saturate_keep_a_gradient(digits_model, subject):
    net, x, y = digits_model

    class Saturated(nn.Module):
        def forward(self, z):
            return torch.tanh(60 * net(z))

    made = subject(Saturated(), x, y)
    assert made.gradients.unusable > 0.3
    view = SmoothActivations().build(made)
    assert made.gradients_of(view).unusable == 0
    assert torch.equal(view(x.clone().requires_grad_()).detach(), Saturated()(x))


def test_a_model_that_cannot_be_run_so_is_left_alone(digits_model, subject):
    net, x, y = digits_model

    class Refuses(nn.Module):
        def forward(self, z):
            if z.detach().requires_grad:
                raise ValueError("not like this")
            return net(z.detach()) + 0 * z.sum()

    assert StraightThrough().build(subject(Refuses(), x, y)) is None


def test_nothing_is_left_changed(digits_model, subject):
    net, x, y = digits_model
    before = vars(torch.autograd.Function)["apply"], torch.autograd._engine_run_backward
    StraightThrough().build(subject(Before(net, Killed.apply), x, y))
    assert (vars(torch.autograd.Function)["apply"], torch.autograd._engine_run_backward) == before
    leaf = x.clone().requires_grad_()
    assert not leaf.detach().requires_grad
    (grad,) = torch.autograd.grad(Killed.apply(leaf).sum(), leaf)
    assert not grad.any()
    with torch.no_grad():
        assert not (2 * leaf).requires_grad


@pytest.mark.parametrize("name", ["killed", "leaky", "thermometer", "signs"])
def test_an_image_s_gradient_does_not_depend_on_its_neighbours(name, digits_model, subject):
    net, x, y = digits_model
    model = Before(net, {**IDENTITIES, **QUANTISERS}[name])
    view = StraightThrough().build(subject(model, (x + 0.02).clamp(0, 1), y))
    together = margin_gradient(view, x, y)
    alone = torch.cat([margin_gradient(view, x[i : i + 1], y[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(alone, together[:6], rtol=1e-4, atol=1e-5)


def test_arrays_that_come_back_in_parts_are_matched_in_order(digits_model, subject):
    net, x, y = digits_model

    def one_by_one(z):
        arrays = [each.detach().numpy() for each in z]
        return torch.stack([torch.from_numpy(np.round(15 * a) / 15) for a in arrays]) + 0 * z

    made = subject(Before(net, one_by_one), x, y)
    view = StraightThrough().build(made)
    assert made.gradients_of(view).agreement > 0.4
