"""The adversarial patch: where it may be, what it looks like, and what it was fitted to."""

import math

import pytest
import torch
from torch import nn

from robustbench_cli.attacks import ATTACKS
from robustbench_cli.attacks._stuck_on import drawn_poses, stuck_on
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.evaluation.tensors import Tensors

SIDE = Threat("patch", 3)


def pose(top, left, degrees=0.0, size=1.0, count=1):
    return torch.tensor([[top, left, math.radians(degrees), size]] * count)


def test_a_square_patch_that_is_not_turned_is_copied_pixel_by_pixel():
    x, patch = torch.zeros(2, 3, 8, 9), torch.rand(3, 4, 4)
    shown = stuck_on(x, patch, torch.cat([pose(1, 2), pose(4, 5)]), round_=False)
    torch.testing.assert_close(shown[0, :, 1:5, 2:6], patch)
    torch.testing.assert_close(shown[1, :, 4:8, 5:9], patch)
    assert (shown != 0).any(1).sum() <= 32


def test_a_quarter_turn_is_the_patch_turned():
    patch = torch.rand(1, 5, 5)
    shown = stuck_on(torch.zeros(1, 1, 7, 7), patch, pose(1, 1, 90), round_=False)
    turned = shown[0, :, 1:6, 1:6]
    one_way, other = torch.rot90(patch, 1, (1, 2)), torch.rot90(patch, -1, (1, 2))
    assert torch.allclose(turned, one_way, atol=1e-5) or torch.allclose(turned, other, atol=1e-5)


def test_nothing_outside_of_one_square_changes_and_a_circle_leaves_its_corners():
    x = torch.full((200, 1, 10, 10), 0.5)
    noise = Noise(0, torch.arange(200))
    poses = drawn_poses(x, 5, 45.0, 0.6, noise)
    shown = stuck_on(x, torch.ones(1, 5, 5), poses, round_=False)
    assert Threat("patch", 5).inside(shown, x).all()
    assert {*poses[:, 0].tolist()} == {*poses[:, 1].tolist()} == {0.0, 1.0, 2.0, 3.0, 4.0, 5.0}
    assert poses[:, 2].abs().max() <= math.radians(45)
    assert poses[:, 3].min() >= 0.6
    changed = (shown != x).flatten(1).sum(1)
    assert changed.min() < changed.max() <= 25
    circle = stuck_on(x[:1], torch.ones(1, 5, 5), pose(0, 0), round_=True)[0, 0, :5, :5]
    assert circle[0, 0] == circle[4, 4] == 0.5
    assert circle[0, 2] == circle[2, 2] == circle[2, 4] == 1


class Bright(nn.Module):
    """Class 1 where any pixel is white, class 0 else; class 2 where one is black."""

    def forward(self, x):
        flat = x.flatten(1)
        white, black = flat.amax(1) - 0.9, 0.1 - flat.amin(1)
        return 20 * torch.stack([0 * white, white, black], 1)


def run_patch(run, net, x, y, text, others, **rest):
    return run(net, x, y, text, SIDE, fit_on=others, **rest)


@pytest.mark.parametrize(("target", "colour"), [(1, 1.0), (2, 0.0)])
def test_it_learns_the_colour_that_a_class_asks_for(target, colour, run):
    x, y = torch.full((6, 1, 8, 8), 0.5), torch.zeros(6, dtype=torch.long)
    others = Tensors(x.clone(), y.clone())
    text = f"patch:epochs=40,target={target},lr=0.05"
    found = run_patch(run, Bright(), x, y, text, others)
    assert found.broken.all()
    assert Bright()(found.x).argmax(1).eq(target).all()
    changed = found.x[found.x != 0.5]
    assert (changed - colour).abs().min() < 0.1
    assert SIDE.inside(found.x, x).all()


def test_places_belong_to_the_example_and_more_tries_break_more(digits_model, run):
    net, x, y = digits_model
    right = net(x).argmax(1) == y
    others, x, y = Tensors(x, y), x[right], y[right]
    text = "patch:epochs=5,batch=12"
    together = run(net, x, y, text, SIDE, fit_on=others)
    few = torch.tensor([4, 1, 7])
    alone = run(net, x[few], y[few], text, SIDE, ids=few, fit_on=others, slots=2)
    assert torch.equal(alone.x, together.x[few])
    places = (together.x != x).flatten(1)
    assert len({tuple(each.tolist()) for each in places}) > 5
    often = run(net, x, y, f"{text},tries=20", SIDE, fit_on=others)
    assert (together.broken <= often.broken).all()
    assert often.broken.sum() > together.broken.sum()


def test_its_picture_is_the_patch_on_white():
    attack = ATTACKS.build(Spec.parse("patch"))
    shown = attack.picture({"patch": torch.zeros(1, 5, 5)}, SIDE)
    assert shown.shape == (1, 5, 5)
    assert shown[0, 0, 0] == 1
    assert shown[0, 2, 2] == 0
