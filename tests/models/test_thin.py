"""ThinConv2d equals nn.Conv2d, gradients included."""

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck, gradgradcheck

from robustbench_cli.models._thin import ThinConv2d

CASES = {
    "one channel": (1, {"padding": 2, "kernel_size": 5}),
    "stride": (3, {"padding": 1, "kernel_size": 4, "stride": 2}),
    "rest at the border": (1, {"padding": 0, "kernel_size": 3, "stride": 2}),
    "neither": (3, {"padding": 1, "kernel_size": 3}),
    "no bias": (1, {"kernel_size": 3, "bias": False}),
}


@pytest.fixture(params=CASES.values(), ids=CASES)
def case(request):
    """Return the convolution, torch's own with the same weights, and an image."""
    channels, options = request.param
    torch.manual_seed(0)
    thin = ThinConv2d(channels, 4, dtype=torch.float64, **options)
    plain = nn.Conv2d(channels, 4, dtype=torch.float64, **options)
    plain.load_state_dict(thin.state_dict())
    return thin, plain, torch.rand(2, channels, 8, 8, dtype=torch.float64, requires_grad=True)


def test_output_and_all_gradients_are_those_of_torch(case):
    thin, plain, x = case
    assert torch.equal(thin(x), plain(x))
    assert torch.equal(thin(x.detach()), plain(x.detach()))
    wrt = [[x, *layer.parameters()] for layer in (thin, plain)]
    found = [
        torch.autograd.grad(layer(x).square().sum(), inputs)
        for layer, inputs in zip((thin, plain), wrt, strict=True)
    ]
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    (alone,) = torch.autograd.grad(thin(x).square().sum(), x)
    torch.testing.assert_close(alone, found[1][0], rtol=1e-12, atol=1e-12)


def test_first_and_second_derivatives_are_those_of_differences(case):
    thin, _, x = case
    small = x[:1].detach().requires_grad_()
    inputs = (small, *thin.parameters())

    def of(x, *parameters):
        names = [name for name, _ in thin.named_parameters()]
        return torch.func.functional_call(thin, dict(zip(names, parameters, strict=True)), (x,))

    assert gradcheck(of, inputs)
    assert gradgradcheck(of, inputs)


def test_a_frozen_layer_gives_the_image_its_gradient_only(case):
    thin, plain, x = case
    thin.requires_grad_(False)
    thin(x).sum().backward()
    expected = torch.autograd.grad(plain(x).sum(), x)[0]
    torch.testing.assert_close(x.grad, expected, rtol=1e-12, atol=1e-12)
    assert all(parameter.grad is None for parameter in thin.parameters())
