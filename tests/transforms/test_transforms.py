"""Transforms keep images images, let gradients through, and do what they say."""

import pytest
import torch

from robustbench_cli.core.registry import Spec
from robustbench_cli.transforms import TRANSFORMS


def built(name, **params):
    return TRANSFORMS.build(Spec(name, params))


@pytest.fixture
def x():
    return torch.rand(3, 2, 6, 6).double().requires_grad_()


@pytest.mark.parametrize("name", TRANSFORMS.names())
def test_images_stay_images_of_their_own_and_gradients_are_finite(name, x):
    seen = built(name)(x)
    assert seen.shape == x.shape
    assert ((seen >= 0) & (seen <= 1)).all()
    (grad,) = torch.autograd.grad(seen[0].sum(), x)
    assert grad.isfinite().all()
    assert grad[0].abs().sum() > 0
    assert (grad[1:] == 0).all()
    torch.testing.assert_close(built(name)(x), seen)  # the same every time


@pytest.mark.parametrize("name", TRANSFORMS.names())
def test_black_and_white_have_finite_slopes(name):
    x = torch.tensor([0.0, 1.0]).double().repeat(1, 1, 6, 3).requires_grad_()
    (grad,) = torch.autograd.grad(built(name)(x).sum(), x)
    assert grad.isfinite().all()


def test_what_they_do_by_value(x):
    x = x.detach()
    assert torch.equal(built("flip")(x), torch.from_numpy(x.numpy()[..., ::-1].copy()))
    assert torch.equal(built("flip-vertical")(x), torch.from_numpy(x.numpy()[..., ::-1, :].copy()))
    torch.testing.assert_close(built("brightness", by=0.2)(x), (x + 0.2).clamp(max=1))
    torch.testing.assert_close(built("gamma", power=2)(x), x**2, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "still",
    [
        ("identity", {}),
        ("brightness", {"by": 0}),
        ("gamma", {"power": 1}),
        ("zoom", {"share": 1}),
        ("rotate", {"degrees": 0}),
    ],
)
def test_nothing_to_do_is_the_identity(still, x):
    name, params = still
    torch.testing.assert_close(built(name, **params)(x), x, rtol=0, atol=1e-6)


def test_zoom_shows_the_middle_and_a_half_turn_is_both_mirrors(x):
    ramp = torch.linspace(0, 1, 6).double().expand(1, 1, 6, 6)
    shown = built("zoom", share=0.5)(ramp)
    # Pixel centres at (i + 1/2) / 6 of the side, drawn to the middle by half.
    expected = (0.5 + 0.5 * ((torch.arange(6).double() + 0.5) / 6 - 0.5)) * 6 - 0.5
    torch.testing.assert_close(shown[0, 0, 2], expected / 5)
    both = built("flip")(built("flip-vertical")(x))
    torch.testing.assert_close(built("rotate", degrees=180)(x), both)
