"""Explanations that look inside a network: Grad-CAM's layer, guided backpropagation's ReLUs."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Spec
from robustbench_cli.explanations import EXPLANATIONS, ExplainedImages

pytest.importorskip("captum")


def of(model, x, target=None):
    target = model(x).argmax(1) if target is None else target
    return ExplainedImages(model=model, x=x, target=target, noise=Noise(0, torch.arange(len(x))))


def explained(text, question):
    return EXPLANATIONS.build(Spec.parse(text)).attributions(question)


def test_grad_cam_is_its_formula(digits_model):
    net, x, _ = digits_model
    question, kept = of(net, x[:4]), []
    hook = net.body.conv3.register_forward_hook(lambda _m, _i, out: kept.append(out))
    chosen = net(x[:4].clone().requires_grad_()).gather(1, question.target[:, None])
    hook.remove()
    (slope,) = torch.autograd.grad(chosen.sum(), kept[0])
    maps = F.relu((slope.mean((2, 3), keepdim=True) * kept[0]).sum(1, keepdim=True))
    expected = F.interpolate(maps, size=(8, 8), mode="bilinear").detach()
    torch.testing.assert_close(explained("grad-cam", question), expected)
    assert torch.equal(explained("grad-cam:body.conv3", question), explained("grad-cam", question))


def test_the_default_layer_of_grad_cam_is_called_last_whatever_its_place():
    class Backwards(nn.Module):
        """Its modules are registered in the other order than they are called in."""

        def __init__(self):
            super().__init__()
            self.last = nn.Conv2d(3, 2, 3)
            self.first = nn.Conv2d(1, 3, 3)

        def forward(self, x):
            return self.last(self.first(x)).mean((2, 3))

    question = of(Backwards().eval(), torch.rand(2, 1, 8, 8))
    assert torch.equal(explained("grad-cam", question), explained("grad-cam:layer=last", question))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("grad-cam:layer=conv9", "no layer 'conv9'"),
        ("grad-cam:layer=body.conv", "did you mean"),
        ("grad-cam:layer=head", "takes a layer with maps"),
    ],
)
def test_a_layer_without_maps_is_refused_in_one_line(text, said, digits_model):
    net, x, _ = digits_model
    with pytest.raises(UserError, match=said) as refused:
        explained(text, of(net, x[:2]))
    assert "\n" not in str(refused.value)


def test_a_model_without_a_convolution_has_no_default_layer():
    flat = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    with pytest.raises(UserError, match="no convolution"):
        explained("grad-cam", of(flat, torch.rand(2, 1, 4, 4)))


def guided(net):
    """The gradient of the chosen logit where every ReLU passes positive gradients only."""

    class GuidedReLU(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.clamp_min(0)

        @staticmethod
        def backward(ctx, slope):
            (x,) = ctx.saved_tensors
            return slope.clamp_min(0) * (x > 0)

    class Stand(nn.Module):
        def forward(self, x):
            return GuidedReLU.apply(x)

    for name, module in list(net.named_modules()):
        if isinstance(module, nn.ReLU):
            parent, _, leaf = name.rpartition(".")
            setattr(net.get_submodule(parent), leaf, Stand())
    return net


@pytest.mark.parametrize("inplace", [False, True])
def test_guided_backprop_is_its_definition(inplace):
    def made():
        torch.manual_seed(2)
        return nn.Sequential(
            nn.Conv2d(1, 6, 3),
            nn.ReLU(inplace=inplace),
            nn.Conv2d(6, 6, 3),
            nn.ReLU(inplace=inplace),
            nn.Flatten(),
            nn.Linear(96, 4),
        )

    question = of(made(), torch.rand(3, 1, 8, 8))
    x = question.x.clone().requires_grad_()
    chosen = guided(made())(x).gather(1, question.target[:, None])
    (expected,) = torch.autograd.grad(chosen.sum(), x)
    found = explained("guided-backprop", question)
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found, explained("gradient", question))


class Odd(nn.Module):
    """A net whose second rectifier is given."""

    def __init__(self, second):
        super().__init__()
        self.conv, self.relu = nn.Conv2d(1, 3, 3), nn.ReLU()
        self.other = nn.Conv2d(3, 3, 3)
        self.head, self.second = nn.Linear(48, 3), second

    def forward(self, x):
        second = self.second or self.relu
        return self.head(second(self.other(self.relu(self.conv(x)))).flatten(1))


@pytest.mark.parametrize(
    ("second", "said"),
    [
        (None, "calls its module 'relu' more than once"),
        (F.relu, "functional ReLUs"),
        (nn.GELU(), "GeluBackward0"),
        (nn.ReLU6(), "HardtanhBackward0"),
        (lambda x: x.clamp(min=0), "Clamp"),
    ],
)
def test_what_is_not_guided_is_refused(second, said):
    with pytest.raises(UserError, match=said):
        explained("guided-backprop", of(Odd(second), torch.rand(2, 1, 8, 8)))


def test_a_model_without_a_relu_has_nothing_to_guide():
    flat = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    with pytest.raises(UserError, match="has no ReLU"):
        explained("guided-backprop", of(flat, torch.rand(2, 1, 4, 4)))
