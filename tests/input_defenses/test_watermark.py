"""The parts of digital watermarking: saliency, morphology and inpainting, and what it cuts out."""

import numpy as np
import pytest
import scipy.ndimage
import scipy.sparse
import scipy.sparse.linalg
import torch
import torch.nn.functional as F
from torch import nn

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.registry import Spec
from robustbench_cli.input_defenses import INPUT_DEFENSES
from robustbench_cli.input_defenses._guided import guided_saliency
from robustbench_cli.input_defenses._inpainting import inpainted
from robustbench_cli.input_defenses.watermark import _dilated


class Functional(nn.Module):
    """The same net with its rectified units called as functions."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        first, _, second, _, flat, last = self.net
        return last(flat(second(first(x).relu()).relu_()))


@pytest.fixture
def net():
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(6 * 64, 5),
    )


def by_hooks(net, x):
    """Guided backpropagation as it is usually written: by hooks on modules."""
    handles = [
        module.register_full_backward_hook(lambda _m, grads, _out: (grads[0].clamp(min=0),))
        for module in net
        if isinstance(module, nn.ReLU)
    ]
    for module in net:
        if isinstance(module, nn.ReLU):
            module.inplace = False
    leaf = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(net(leaf).amax(1).sum(), leaf)
    for handle in handles:
        handle.remove()
    return grad.abs().amax(1)


def test_guided_saliency_is_that_of_hooks_on_modules(net, digits):
    expected = by_hooks(net, digits)
    plain = digits.clone().requires_grad_()
    (grad,) = torch.autograd.grad(net(plain).amax(1).sum(), plain)
    assert not torch.allclose(expected, grad.abs().amax(1), atol=1e-4)  # it is no plain gradient
    net[3].inplace = True
    for model in (net, Functional(net)):
        torch.testing.assert_close(guided_saliency(model, digits), expected)
        with torch.no_grad():
            torch.testing.assert_close(guided_saliency(model, digits), expected)
        with torch.inference_mode():
            torch.testing.assert_close(guided_saliency(model, digits.clone()), expected)


@pytest.mark.parametrize("by", [0, 1, 2])
def test_morphology_is_scipys(by):
    mask = np.random.default_rng(by).random((12, 15)) < 0.6
    ours = torch.from_numpy(mask).float()[None, None]
    size = np.ones((2 * by + 1, 2 * by + 1), bool)
    eroded = scipy.ndimage.binary_erosion(mask, size, border_value=1)
    dilated = scipy.ndimage.binary_dilation(mask, size)
    assert np.array_equal(1 - _dilated(1 - ours, by)[0, 0].numpy(), eroded)
    assert np.array_equal(_dilated(ours, by)[0, 0].numpy(), dilated)


def laplace(image, hole):
    """One channel (H, W) with its hole filled in, by a sparse solver."""
    places = {tuple(place): number for number, place in enumerate(np.argwhere(hole))}
    system, right = scipy.sparse.lil_matrix((len(places),) * 2), np.zeros(len(places))
    for (i, j), number in places.items():
        for other in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
            if not (0 <= other[0] < hole.shape[0] and 0 <= other[1] < hole.shape[1]):
                continue
            system[number, number] += 1
            if other in places:
                system[number, places[other]] -= 1
            else:
                right[number] += image[other]
    filled = image.copy()
    filled[hole] = scipy.sparse.linalg.spsolve(system.tocsr(), right)
    return filled


def test_inpainting_solves_the_laplace_equation():
    x, hole = torch.rand(2, 3, 20, 26), torch.zeros(2, 1, 20, 26, dtype=torch.bool)
    hole[0, 0, 5:17, 8:21] = True  # in the middle
    hole[1, 0, :9, 14:] = True  # at a corner of the image
    hole[1, 0, 12:14, 3] = True
    found = inpainted(x, hole).double().numpy()
    for image, ours, where in zip(x.double().numpy(), found, hole[:, 0].numpy(), strict=True):
        for channel, filled in zip(image, ours, strict=True):
            np.testing.assert_allclose(filled, laplace(channel, where), atol=1e-4)


def test_the_gradient_of_inpainting_is_exact():
    x = torch.rand(1, 1, 5, 4, dtype=torch.double, requires_grad=True)
    hole = torch.zeros(1, 1, 5, 4, dtype=torch.bool)
    hole[0, 0, 1:4, :3] = True
    # The solver leaves 1e-5, which differences of 0.1 of a linear function do not magnify.
    assert torch.autograd.gradcheck(lambda x: inpainted(x, hole), x, eps=0.1, atol=1e-4)


def test_an_image_with_nothing_left_is_black():
    x, hole = torch.rand(1, 1, 6, 6), torch.ones(1, 1, 6, 6, dtype=torch.bool)
    assert not inpainted(x, hole).any()


class Corner(nn.Module):
    """Looks at a corner of 4x4 pixels and at a single pixel elsewhere."""

    def forward(self, x):
        patch = x[:, :, :4, :4].flatten(1).sum(1) + x[:, 0, 10, 10]
        return torch.stack([patch, torch.zeros_like(patch)], 1)


def test_what_is_dense_is_cut_out_and_what_is_scattered_is_not(cleaned):
    x = torch.full((1, 1, 16, 16), 0.5)
    x[..., :4, :4], x[..., 10, 10] = 1.0, 1.0
    found = cleaned("watermark:erode=1,dilate=1", x, Corner())
    assert (found[..., :4, :4] - 0.5).abs().max() < 1e-4
    assert found[0, 0, 10, 10] == 1
    assert torch.equal(cleaned("watermark:erode=4,dilate=4", x, Corner()), x)


def test_a_known_mask_is_cut_out_whatever_the_model_says(cleaned):
    x = torch.rand(2, 3, 16, 16)
    found = cleaned("watermark:mask=box:share=0.5", x)
    changed = (found != x).any(1)
    assert changed[:, 4:12, 4:12].all()
    changed[:, 4:12, 4:12] = False
    assert not changed.any()
    blind, known = (
        INPUT_DEFENSES.build(Spec.parse(text)) for text in ("watermark", "watermark:mask=border")
    )
    assert blind.dynamic
    assert not known.dynamic


def test_a_mask_that_depends_on_the_image_is_not_known():
    with pytest.raises(UserError, match=r"depends on the image.*box:share=0.3"):
        INPUT_DEFENSES.build(Spec.parse("watermark:mask=threshold"))
    with pytest.raises(UserError, match="did you mean 'box'"):
        INPUT_DEFENSES.build(Spec.parse("watermark:mask=bix"))


def test_the_exact_way_back_goes_around_what_is_cut_out(cleaned):
    x = torch.full((1, 1, 16, 16), 0.5)
    x[..., :4, :4] = 1.0
    leaf = x.clone().requires_grad_()
    weights = torch.rand_like(x)
    (weights * cleaned("watermark:erode=1,dilate=1", leaf, Corner())).sum().backward()
    assert not leaf.grad[..., :4, :4].any()
    outside = F.pad(torch.ones(1, 1, 5, 5, dtype=torch.bool), (0, 11, 0, 11)).logical_not()
    assert (leaf.grad[outside] >= weights[outside] - 1e-6).all()
