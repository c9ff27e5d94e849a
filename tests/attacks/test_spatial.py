"""Rotations and translations beside the grid computed by brute force."""

from itertools import product

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as TF

from robustbench_cli.attacks import ATTACKS
from robustbench_cli.core.poses import PoseLattice
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat

WHOLE = Threat("spatial", 1)


def by_torchvision(images, right, down, degrees):
    """Zero padding of 16 pixels, rotation, translation, both bilinear, and a crop."""
    padded = nn.functional.pad(images.double(), (16, 16, 16, 16))
    turned = TF.rotate(padded, degrees, interpolation=InterpolationMode.BILINEAR)
    side = padded.shape[3]
    theta = torch.tensor([[1, 0, -2 * right / side], [0, 1, -2 * down / side]]).double()
    theta = theta.expand(len(images), 2, 3)
    grid = nn.functional.affine_grid(theta, list(padded.shape), align_corners=False)
    moved = nn.functional.grid_sample(turned, grid, align_corners=False)
    return moved[:, :, 16:-16, 16:-16].float()


def grid(pixels=3, degrees=30, count=(5, 31)):
    """Poses by their limits; without arguments those of the authors' configuration."""
    across = np.linspace(-pixels, pixels, count[0])
    return list(product(across, across, np.linspace(-degrees, degrees, count[1])))


def test_the_grid_is_the_authors_and_its_images_are_torchvision_s(build):
    lattice = PoseLattice.of((1, 28, 28))
    poses = build("spatial").grid(lattice, 1.0)
    ours = poses.double() * torch.tensor([0.25, 0.25, 0.5])
    assert sorted(map(tuple, ours.tolist())) == sorted(grid())
    assert len(poses) == 775 == build("spatial").planned_passes
    x = torch.rand(1, 1, 28, 28)
    for pose, (right, down, degrees) in zip(poses[::25], ours[::25].tolist(), strict=True):
        made = lattice.rendered(x, pose[None])
        assert (made - by_torchvision(x, right, down, degrees)).abs().max() < 1e-5


def test_its_verdicts_are_those_of_a_grid_by_brute_force(digits_model, run):
    """At half of the limits, one pixel for these images; fewer poses, for the sake of time."""
    net, x, y = digits_model
    found = run(net, x, y, "spatial:shifts=3,angles=11", Threat("spatial", 0.5))
    fell = torch.zeros(len(y), dtype=torch.bool)
    for right, down, degrees in grid(0.5, 15, (3, 11)):
        fell |= net(by_torchvision(x, right, down, degrees)).argmax(1) != y
    assert torch.equal(found.broken, fell)
    assert 0 < int(fell.sum()) < len(y)
    assert net(found.x[fell]).argmax(1).ne(y[fell]).all()
    assert (found.forwards[~fell] == 99 + 2).all()  # the clean pass, the grid, the verdict
    assert (found.backwards == 0).all()


@pytest.mark.parametrize("mode", ["grid", "random"])
def test_smaller_limits_hold(mode, digits_model, run):
    net, x, y = digits_model
    x, y = x[:12], y[:12]
    few = {"grid": "spatial:shifts=3,angles=5", "random": "spatial:random,tries=30"}[mode]
    small, large = (run(net, x, y, few, Threat("spatial", eps)) for eps in (0.3, 1))
    assert (small.norm <= 0.3 * (1 + 1e-6)).all()
    assert large.norm.max() > 0.5
    assert large.broken.sum() >= small.broken.sum()


def test_random_poses_belong_to_the_example(digits_model, run):
    net, x, y = digits_model
    x, y = x[:12], y[:12]
    whole = run(net, x, y, "spatial:random", WHOLE, slots=5)
    rows = torch.tensor([8, 3, 5])
    alone = run(net, x[rows], y[rows], "spatial:random", WHOLE, ids=rows)
    assert torch.equal(alone.x, whole.x[rows])
    assert torch.equal(alone.broken, whole.broken[rows])
    assert not torch.equal(whole.x[0], x[0])


def test_an_attack_that_says_it_rotates_is_not_believed():
    """What the verifier is shown decides: another image is brought back to the clean one."""
    x = torch.rand(2, 1, 28, 28)
    rendered = PoseLattice.of((1, 28, 28)).rendered(x, torch.tensor([[4, 4, 9]] * 2))
    cheated = rendered.clone()
    cheated[1, 0, 5:9, 5:9] = 1
    stored = WHOLE.stored(cheated, x)
    assert torch.equal(stored[0], rendered[0])
    assert torch.equal(stored[1], x[1])


def test_one_pose_is_the_image_itself():
    attack = ATTACKS.build(Spec("spatial", {"shifts": 1, "angles": 1}))
    assert attack.grid(PoseLattice.of((1, 28, 28)), 1.0).tolist() == [[0, 0, 0]]
