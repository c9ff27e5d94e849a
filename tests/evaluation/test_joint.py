"""Domains as one model: their order, their labels, one change for several images."""

import pytest
import torch
from torch import nn

from robustbench_cli.core.errors import RunError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.threat import Threat
from robustbench_cli.evaluation.joint import (
    Groups,
    Joint,
    JointThreat,
    JointVerifier,
    with_shared_change,
)
from robustbench_cli.transforms.flips import Flip
from robustbench_cli.transforms.identity import Identity

RADII = {"Linf": 0.1, "L2": 0.4, "L1": 1.5}
every_norm = pytest.mark.parametrize("norm", RADII)


class Data:
    def __init__(self, n):
        self.x, self.y = torch.rand(n, 1, 4, 4).double(), torch.arange(n) % 3

    def images(self, rows):
        return self.x[rows]

    def expect(self, rows):
        pass


class Corner(nn.Module):
    """Logits that are the first pixel of an image, shifted."""

    def __init__(self, shift):
        super().__init__()
        self.shift = shift

    def forward(self, x):
        return x[:, 0, 0, :1] + torch.tensor([0.0, 1.0, 2.0]) + self.shift


def groups():
    """Images (5, 3, C, H, W), three in a group, that nowhere go to both ends of the box."""
    return 0.1 + 0.6 * torch.rand(5, 3, 1, 4, 4).double()


def test_domains_are_counted_image_by_image_model_by_model_transform_by_transform():
    x = groups()
    logits = Joint([Corner(10), Corner(20)], [Identity(), Flip()])(x)
    assert logits.shape == (5, 12, 3)
    for image in range(3):
        for place, (shift, column) in enumerate(((10, 0), (10, 3), (20, 0), (20, 3))):
            seen = x[:, image, 0, 0, column] + shift
            torch.testing.assert_close(logits[:, 4 * image + place, 0].double(), seen)


def test_groups_are_neighbours_and_the_rest_is_left_out():
    data = Data(11)
    found = Groups(data, 3, views=2)
    assert found.y.shape == (3, 6)
    assert found.y[1].tolist() == [0, 0, 1, 1, 2, 2]
    torch.testing.assert_close(found.images(torch.tensor([2, 0]))[0], data.x[6:9])
    assert found.images(slice(2)).shape == (2, 3, 1, 4, 4)


def test_single_images_stay_single():
    data = Data(4)
    assert Groups(data, 1, views=3).y.tolist() == [[0] * 3, [1] * 3, [2] * 3, [0] * 3]
    torch.testing.assert_close(Groups(data, 1, views=3).images(torch.tensor([1])), data.x[1:2])


def test_the_gradient_of_a_group_is_that_of_one_change_to_all_its_images():
    x = groups().requires_grad_()
    rate = torch.rand_like(x)
    assert torch.equal(with_shared_change(x), x)
    (grad,) = torch.autograd.grad((rate * with_shared_change(x)).sum(), x)
    torch.testing.assert_close(grad, rate.sum(1, keepdim=True).expand_as(x))


@every_norm
def test_a_change_is_shared_in_the_ball_and_keeps_every_image_in_the_box(norm):
    x, threat = groups(), JointThreat(norm, RADII[norm])
    wanted = (torch.rand(5, 1, 1, 4, 4).double() - 0.5).expand_as(x)
    moved = threat.project(x + wanted, x)
    change = moved - x
    torch.testing.assert_close(change, change[:, :1].expand_as(x), rtol=0, atol=1e-12)
    assert threat.inside(moved, x).all()
    torch.testing.assert_close(threat.project(moved, x), moved, rtol=0, atol=1e-9)
    start = threat.random_start(x, Noise(0, torch.arange(5)))
    assert threat.inside(start, x).all()
    assert (start != x).any(4).any(3).any(2).all()
    step = threat.steepest(together_gradient(x))
    torch.testing.assert_close(step, step[:, :1].expand_as(x))
    assert threat.distance(x + step, x) == pytest.approx(1, abs=1e-6)


def together_gradient(x):
    return torch.randn(5, 1, 1, 4, 4).double().expand_as(x)


@every_norm
def test_a_group_of_one_image_is_under_the_plain_threat(norm):
    x = groups()[:, :1]
    wanted = x + 0.3 * torch.randn_like(x)
    plain, shared = Threat(norm, RADII[norm]), JointThreat(norm, RADII[norm])
    torch.testing.assert_close(
        shared.project(wanted, x)[:, 0], plain.project(wanted[:, 0], x[:, 0])
    )
    torch.testing.assert_close(shared.steepest(wanted)[:, 0], plain.steepest(wanted[:, 0]))


def test_ball_and_box_by_hand():
    """Room from -0.1 to 0.25 for (0.3, 0.4, 0), radius 0.3: the nearest point is on the ray."""
    x = torch.tensor([[[0.1, 0.1, 0.1], [0.75, 0.75, 0.75]]]).double().view(1, 2, 1, 1, 3)
    wanted = torch.tensor([0.3, 0.4, 0.0]).double()
    change = JointThreat("L2", 0.3).project(x + wanted, x) - x
    expected = torch.tensor([0.18, 0.24, 0.0]).double().expand_as(change)
    torch.testing.assert_close(change, expected, rtol=0, atol=1e-7)
    there = JointThreat("L2", 0.3).project(x + torch.tensor([-0.3, 0.4, 0.0]).double(), x) - x
    assert there.flatten(2)[0, 0].tolist() == pytest.approx([-0.1, 0.24, 0])


def test_all_domains_must_be_wrong():
    x = groups()[:, 0].float()
    jury, threat = JointVerifier(Joint([Corner(0), Corner(0)], [Identity()])), Threat("Linf", 0.1)
    # Every domain says class 2.
    y = torch.tensor([[0, 1], [2, 1], [1, 2], [2, 2], [0, 0]])
    verdict = jury.verdict(x, x, y, threat)
    assert verdict.prediction.tolist() == [[2, 2]] * 5
    assert verdict.broken.tolist() == [True, False, False, False, True]
    assert verdict.share.tolist() == [0, 1, 1, 1, 0]
    assert verdict.margin.tolist() == pytest.approx([1, -1, -1, -1, 2])
    assert torch.equal(jury.broken(x, y), verdict.broken)
    with pytest.raises(RunError, match="left the ball or the box"):
        jury.verdict(x + 0.2, x, y, threat)
