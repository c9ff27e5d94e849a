"""Each input defense against a computation of its own: scipy, torchvision, or written out."""

import numpy as np
import pytest
import scipy.ndimage
import scipy.optimize
import torch
import torch.nn.functional as F
from torchvision.io import decode_jpeg, encode_jpeg

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.registry import Spec
from robustbench_cli.input_defenses import INPUT_DEFENSES


def test_bit_depth_rounds_to_its_levels(cleaned):
    x = torch.linspace(0, 1, 64).view(1, 1, 8, 8)
    expected = np.rint(x.numpy() * 7) / 7
    np.testing.assert_allclose(cleaned("bit-depth", x).numpy(), expected, atol=1e-7)
    assert cleaned("bit-depth:1", x).unique().tolist() == [0, 1]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torchvision's own, of its reader
@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_what_another_coder_makes(cleaned, channels):
    x = F.interpolate(torch.rand(2, channels, 8, 8), 32, mode="bilinear")
    found = cleaned("jpeg:quality=60", x)
    for image, ours in zip((255 * x).round().byte(), found, strict=True):
        theirs = decode_jpeg(encode_jpeg(image, quality=60)).float() / 255
        assert (ours - theirs).abs().max() <= 2.01 / 255
    assert (found - x).abs().max() > 3 / 255  # it is lossy


def test_jpeg_refuses_what_no_jpeg_holds():
    with pytest.raises(UserError, match="1 or 3 channels, these have 4"):
        INPUT_DEFENSES.build(Spec("jpeg")).check((4, 8, 8))


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_median_is_scipys(cleaned, digits, size):
    expected = scipy.ndimage.median_filter(digits.numpy(), (1, 1, size, size), mode="reflect")
    assert np.array_equal(cleaned(f"median:{size}", digits).numpy(), expected)


def test_total_variation_finds_the_minimum(cleaned):
    draw = np.random.default_rng(0)
    squares = np.kron([[0.2, 0.8], [0.8, 0.2]], np.ones((3, 3)))
    x = np.clip(squares + 0.1 * draw.normal(size=(6, 6)), 0, 1)

    def objective(flat, smooth=0.0):
        z = flat.reshape(6, 6)
        across, down = np.zeros_like(z), np.zeros_like(z)
        across[:, :-1], down[:-1] = np.diff(z, axis=1), np.diff(z, axis=0)
        return ((z - x) ** 2).sum() + 0.2 * np.sqrt(across**2 + down**2 + smooth).sum()

    best = scipy.optimize.minimize(objective, x.ravel(), args=(1e-8,), method="L-BFGS-B")
    batch = torch.from_numpy(x).float().view(1, 1, 6, 6)
    found = cleaned("total-variation:weight=0.2,drop=0,steps=400", batch).double().numpy()
    assert objective(x.ravel()) > 1.2 * best.fun  # there is something to smooth
    assert objective(found.ravel()) == pytest.approx(best.fun, rel=2e-3)


def test_total_variation_fills_in_what_it_drops(cleaned):
    x = torch.full((2, 3, 8, 8), 0.6)
    dropped = cleaned("total-variation:drop=0.5", x)
    assert (dropped - x).abs().max() < 0.05
    noisy = torch.rand(1, 1, 16, 16)
    first, second = (cleaned("total-variation", noisy, seed=seed) for seed in (0, 1))
    assert not torch.equal(first, second)


def test_resize_pad_is_a_nearest_resize_at_some_place(cleaned, digits):
    found, seen = cleaned("resize-pad:smallest=0.5", digits), set()
    for image, ours in zip(digits, found, strict=True):
        places = {
            (side, top, left)
            for side in range(4, 9)
            for small in [F.interpolate(image[None], side, mode="nearest")]
            for top in range(9 - side)
            for left in range(9 - side)
            if torch.equal(F.pad(small, (left, 8 - side - left, top, 8 - side - top))[0], ours)
        }
        assert places
        seen |= {min(places)}
    assert {side for side, _, _ in seen} == {4, 5, 6, 7, 8}
    assert len(seen) > 10


def test_resize_pad_draws_for_the_example_and_not_for_its_place(cleaned, digits):
    whole = cleaned("resize-pad", digits.repeat(2, 1, 1, 1)[:24])
    assert torch.equal(cleaned("resize-pad", digits[:5]), whole[:5])
    assert not torch.equal(cleaned("resize-pad", digits, seed=1), whole)


def lgs_by_hand(image, window=15, overlap=5, threshold=0.1, strength=2.3):
    """The paper's method on one image (C, H, W), with loops."""
    weights = [0.2989, 0.587, 0.114] if len(image) == 3 else [1.0]
    grey = np.tensordot(weights, image, 1)
    high, wide = grey.shape
    steep = np.zeros_like(grey)
    for i in range(high):
        for j in range(wide):
            across = grey[i, j] - grey[i, j + 1] if j + 1 < wide else 0
            down = grey[i, j] - grey[i + 1, j] if i + 1 < high else 0
            steep[i, j] = np.hypot(across, down)
    steep = (steep - steep.min()) / (steep.max() - steep.min() + 1e-7)

    def starts(side):
        length = min(window, side)
        regular = [s for s in range(0, side, window - overlap) if s + length <= side]
        return length, sorted({*regular, side - length})

    (tall, rows), (broad, columns) = starts(high), starts(wide)
    mask = np.zeros_like(grey)
    for i in rows:
        for j in columns:
            if steep[i : i + tall, j : j + broad].mean() > threshold:
                mask[i : i + tall, j : j + broad] = 1
    return image * (1 - np.clip(strength * steep * mask, 0, 1))


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (1, 35, 25), (1, 8, 8), (3, 15, 40)])
def test_lgs_is_the_paper_written_out(cleaned, shape):
    smooth = F.interpolate(torch.rand(3, shape[0], 4, 4), shape[1:], mode="bilinear")
    x = smooth.clone()
    corner = x[:, :, : shape[1] // 3, : shape[2] // 3]
    corner.copy_(torch.rand(corner.shape))  # a noisy patch
    found = cleaned("lgs", x).numpy()
    expected = np.stack([lgs_by_hand(each) for each in x.double().numpy()])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert not np.array_equal(found, x.numpy())


def test_lgs_darkens_a_noisy_patch_and_leaves_the_rest_alone(cleaned):
    x = torch.full((1, 1, 60, 60), 0.5)
    x[:, :, :10, :10] = (torch.rand(1, 1, 10, 10) > 0.5).float()
    found = cleaned("lgs", x)
    assert found[:, :, :10, :10].mean() < 0.5 * x[:, :, :10, :10].mean()
    assert torch.equal(found[:, :, 30:, 30:], x[:, :, 30:, 30:])
    flat = torch.full((1, 1, 28, 28), 0.3)
    assert torch.equal(cleaned("lgs", flat), flat)


def test_lgs_looks_at_every_pixel(cleaned):
    """Windows of 15 every 10 pixels would leave the last rows and columns of 28 alone."""
    x = torch.zeros(1, 1, 28, 28)
    x[..., 25:, 25:] = torch.tensor([[0.0, 1, 0], [1, 0, 1], [0, 1, 0]])
    assert torch.equal(cleaned("lgs:threshold=0.02", x)[..., :25, :25], x[..., :25, :25])
    assert cleaned("lgs:threshold=0.02", x).sum() < x.sum()


def test_lgs_refuses_windows_that_do_not_advance():
    with pytest.raises(UserError, match="overlap 15 must be below window 15"):
        INPUT_DEFENSES.build(Spec.parse("lgs:overlap=15"))
