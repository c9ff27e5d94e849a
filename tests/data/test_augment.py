"""Random shifts, mirror images and rotations, keyed by example."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.functional import rotate

from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Spec
from robustbench_cli.data import DATASETS, Padding, augment, rotated, turned


def images(count: int = 12, height: int = 6, width: int = 9) -> Tensor:
    # No pixel is zero, so that the padding can be told apart, and no two are alike.
    total = count * 2 * height * width
    return torch.arange(1.0, total + 1).view(count, 2, height, width) / total


def noise(count: int = 12, seed: int = 0) -> Noise:
    return Noise(seed, torch.arange(100, 100 + count))


def one_by_one(x: Tensor, source: Noise, pad: int, flip: bool) -> Tensor:
    """Augment one image and one pixel at a time."""
    out = torch.zeros_like(x)
    _, channels, height, width = x.shape
    for i in range(len(x)):
        own = Noise(source.seed, source.ids[i : i + 1], source.stream).fork("augment")
        down, right, side = own.uniform(torch.empty(1, 3))[0].tolist()
        down, right = int(down * (2 * pad + 1)) - pad, int(right * (2 * pad + 1)) - pad
        for row in range(height):
            for column in range(width):
                place = width - 1 - column if flip and side < 0.5 else column
                r, c = row + down, place + right
                if 0 <= r < height and 0 <= c < width:
                    for channel in range(channels):
                        out[i, channel, row, column] = x[i, channel, r, c]
    return out


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("pad", [0, 1, 4, 10])
def test_it_equals_the_plain_loop(pad: int, flip: bool) -> None:
    x = images()
    assert torch.equal(augment(x, noise(), pad=pad, flip=flip), one_by_one(x, noise(), pad, flip))


@pytest.mark.parametrize(("padding", "mode"), [("reflect", "reflect"), ("nearest", "replicate")])
@pytest.mark.parametrize("pad", [1, 2, 5])
def test_borders_equal_torch_s(pad: int, padding: Padding, mode: str) -> None:
    """The crop that a key asks for, out of the image that PyTorch has padded."""
    x = images()
    out = augment(x, noise(), pad=pad, flip=False, padding=padding)
    padded = F.pad(x, (pad, pad, pad, pad), mode=mode)
    draw = noise().fork("augment").uniform(torch.empty(12, 3))
    for i, (top, left) in enumerate((draw[:, :2] * (2 * pad + 1)).long().tolist()):
        assert torch.equal(out[i], padded[i, :, top : top + 6, left : left + 9])
    mirrored = augment(x, noise(), pad=pad, flip=True, padding=padding)
    for i, side in enumerate(draw[:, 2].tolist()):
        assert torch.equal(mirrored[i], out[i].flip(2) if side < 0.5 else out[i])


def test_reflection_goes_on_beyond_the_other_side() -> None:
    x = torch.tensor([1.0, 2.0, 3.0]).expand(200, 1, 3, 3)
    out = augment(x, noise(200), pad=9, flip=False, padding="reflect")[:, 0, 0]
    endless = "1232" * 3
    assert {"".join(str(int(v)) for v in row) for row in out} == {
        endless[i : i + 3] for i in range(4)
    }


def test_rotation_equals_torchvision() -> None:
    x = images()
    angles = torch.linspace(-15, 15, 12)
    out = rotated(x, angles)
    for i, angle in enumerate(angles.tolist()):
        assert torch.equal(out[i : i + 1], rotate(x[i : i + 1], angle))
    assert torch.equal(rotated(x, torch.zeros(12)), x)


def test_rotation_is_keyed_by_example_and_bounded() -> None:
    x, source = images(), noise()
    whole = turned(x, source, 15)
    order = torch.tensor([7, 0, 11, 3])
    assert torch.equal(turned(x[order], source.only(order), 15), whole[order])
    draw = source.fork("rotate").uniform(torch.empty(12, 1))[:, 0]
    assert torch.equal(whole, rotated(x, 15 * (2 * draw - 1)))
    assert draw.min() < 0.3
    assert draw.max() > 0.7  # both ways


def test_without_augmentation_images_are_unchanged() -> None:
    x = images()
    before = x.clone()
    assert torch.equal(augment(x, noise(), pad=0, flip=False), x)
    augment(x, noise(), pad=3, flip=True)
    assert torch.equal(x, before)


def test_an_example_is_augmented_alike_in_any_batch() -> None:
    x, source = images(), noise()
    whole = augment(x, source, pad=2, flip=True)
    order = torch.tensor([7, 0, 11, 3])
    assert torch.equal(augment(x[order], source.only(order), pad=2, flip=True), whole[order])
    for i in range(len(x)):
        alone = augment(x[i : i + 1], source.only(torch.tensor([i])), pad=2, flip=True)
        assert torch.equal(alone[0], whole[i])


def test_seeds_differ() -> None:
    x = images()
    same, other = (augment(x, noise(seed=s), pad=2, flip=True) for s in (0, 1))
    assert not torch.equal(same, other)


def test_every_shift_and_side_comes_up_evenly() -> None:
    count, pad = 6000, 1
    x = torch.zeros(count, 1, 5, 5)
    x[:, :, 2, 2] = 1
    x[:, :, 2, 3] = 0.5  # points to the right, unless mirrored
    out = augment(x, noise(count), pad=pad, flip=True)[:, 0]
    rows = (out == 1).any(2).float().argmax(1)
    assert torch.bincount(rows, minlength=5).tolist()[0::4] == [0, 0]
    assert ((torch.bincount(rows, minlength=5)[1:4] / count - 1 / 3).abs() < 0.03).all()
    one, half = ((out == v).any(1).float().argmax(1) for v in (1, 0.5))
    assert abs((half < one).float().mean().item() - 0.5) < 0.03


def test_the_field_augment_decides() -> None:
    x = images(height=8, width=8)
    for kind, expected in (
        ("none", x),
        ("crop", augment(x, noise(), pad=3, flip=False)),
        ("crop-flip", augment(x, noise(), pad=3, flip=True)),
    ):
        made = DATASETS.build(Spec("digits", {"augment": kind, "pad": 3}))
        assert torch.equal(made.augmented(x, noise()), expected)
    every = {"augment": "crop-flip", "pad": 3, "padding": "reflect", "rotate": 15}
    expected = turned(augment(x, noise(), pad=3, flip=True, padding="reflect"), noise(), 15)
    assert torch.equal(DATASETS.build(Spec("digits", every)).augmented(x, noise()), expected)


def test_only_the_cifars_are_augmented_by_default() -> None:
    default = {
        name: DATASETS.entry(name).cls.__dataclass_fields__["augment"].default
        for name in DATASETS.names()
    }
    assert {n for n, kind in default.items() if kind != "none"} == {"cifar10", "cifar100"}
    assert default["cifar10"] == default["cifar100"] == "crop-flip"
