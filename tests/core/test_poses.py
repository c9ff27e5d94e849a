"""Poses: what they render, beside scipy, and how an image's pose is found again."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.poses import ANGLES, PoseLattice, pose_sizes

SHAPES = [(1, 28, 28), (3, 32, 32), (1, 8, 8), (2, 10, 17)]


def by_scipy(image, right, down, degrees):
    """Pad by 16, rotate bilinearly about the middle, translate, crop: as the authors' code does."""
    padded = np.pad(np.asarray(image, dtype=np.float64), [(0, 0), (16, 16), (16, 16)])
    angle = math.radians(degrees)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    middle = (np.array(padded.shape[1:]) - 1) / 2
    turned = [ndimage.affine_transform(c, turn, middle - turn @ middle, order=1) for c in padded]
    moved = [ndimage.shift(c, (down, right), order=1) for c in turned]
    return np.stack(moved)[:, 16:-16, 16:-16]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_pose_is_rendered_as_scipy_renders_it(shape):
    x, lattice = torch.rand(12, *shape), PoseLattice.of(shape)
    poses = lattice.drawn(1.0, x, Noise(3, torch.arange(12)))
    made = lattice.rendered(x, poses)
    for image, clean, (right, down, angle) in zip(made, x, poses.tolist(), strict=True):
        expected = by_scipy(clean, right * lattice.step, down * lattice.step, angle / 2)
        assert np.abs(image.numpy() - expected).max() < 1e-5


def test_it_turns_counter_clockwise_and_moves_right_and_down():
    x = torch.zeros(1, 1, 9, 9)
    x[0, 0, 4, 8] = 1  # at the right, in the middle
    lattice = PoseLattice(9, 0.25)

    def place(pose):
        return divmod(int(lattice.rendered(x, torch.tensor([pose])).argmax()), 9)

    assert place((-8, 0, 0)) == (4, 6)
    assert place((0, 8, 0)) == (6, 8)
    row, column = place((0, 0, ANGLES))  # 30 degrees
    assert (row, column) == (2, 7)


def test_no_pose_is_the_very_image():
    x = torch.rand(3, 3, 32, 32)
    none = torch.zeros(3, 3, dtype=torch.long)
    assert torch.equal(PoseLattice.of((3, 32, 32)).rendered(x, none), x)
    assert pose_sizes(x, x).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("side", "limit", "step"),
    [(28, 3, 0.25), (32, 3, 0.25), (224, 24, 0.5), (8, 1, 0.25), (64, 7, 0.25), (4, 1, 0.25)],
)
def test_limits_are_those_of_the_paper_where_it_has_some(side, limit, step):
    assert PoseLattice.of((3, side, side)) == PoseLattice(limit, step)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_pose_of_an_image_is_found_again(shape):
    x, lattice = torch.rand(10, *shape), PoseLattice.of(shape)
    poses = lattice.drawn(1.0, x, Noise(4, torch.arange(10)))
    found = pose_sizes(lattice.rendered(x, poses), x)
    torch.testing.assert_close(found, lattice.sizes(poses))


def test_an_image_with_few_details_gets_the_smallest_pose_that_makes_it():
    x = torch.zeros(2, 1, 28, 28)
    x[0, 0, 10:18, 10:18] = 1  # a black image with a square, and one with nothing
    lattice = PoseLattice.of((1, 28, 28))
    poses = torch.tensor([[4, 0, 0], [4, 8, 20]])
    assert pose_sizes(lattice.rendered(x, poses), x).tolist() == [4 / 12, 0]


def test_what_is_no_rendering_has_no_size():
    x = torch.rand(6, 1, 28, 28)
    lattice = PoseLattice.of((1, 28, 28))
    made = lattice.rendered(x, torch.tensor([[4, -6, 31]]).expand(6, 3))
    made[0, 0, 13, 13] += 1e-3  # one entry of a rendering
    made[1] = (made[1] + 2e-5).clamp(0, 1)  # all of them, by little
    made[2] = torch.rand(1, 28, 28)
    made[3] = x[4]  # another image
    made[4] = torch.nan
    made[5] = lattice.rendered(x[5:], torch.tensor([[13, 0, 0]]))[0]  # a quarter of a pixel beyond
    assert pose_sizes(made, x).tolist() == [math.inf] * 6


def test_random_poses_fill_a_part_of_the_limits():
    x = torch.rand(4000, 1, 28, 28)[:, :, :1, :1]
    lattice = PoseLattice(3, 0.25)
    poses = lattice.drawn(0.5, x, Noise(0, torch.arange(4000)))
    assert poses.amin(0).tolist() == [-6, -6, -30]
    assert poses.amax(0).tolist() == [6, 6, 30]
    assert poses.double().mean(0).abs().max() < 1
    few = lattice.drawn(0.5, x[:2], Noise(0, torch.tensor([7, 3])))
    assert torch.equal(few, poses[[7, 3]])
