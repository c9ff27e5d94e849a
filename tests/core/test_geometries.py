"""Threats that are no balls: whole pixels, patches, poses."""

import pytest
import torch

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.geometries import GEOMETRIES
from robustbench_cli.core.threat import Threat

SIZES = {"L0": 4, "patch": 3, "spatial": 0.5}
every_norm = pytest.mark.parametrize("norm", SIZES)


def inside_by_hand(x_adv, x, norm, eps):
    """By counting, pixel by pixel."""
    rows, columns = (x_adv != x).any(0).nonzero().T.tolist()
    if norm == "L0":
        return len(rows) <= eps
    return not rows or (max(rows) - min(rows) < eps and max(columns) - min(columns) < eps)


@every_norm
def test_random_images_are_allowed_and_the_example_s_own(norm):
    x, noise = torch.rand(30, 3, 8, 8), Noise(0, torch.arange(30))
    threat = Threat(norm, SIZES[norm])
    start = threat.random_start(x, noise)
    assert threat.inside(start, x).all()
    assert torch.equal(threat.stored(start, x), start)
    assert (threat.distance(start, x) <= threat.eps).all()
    few = torch.tensor([7, 2])
    assert torch.equal(threat.random_start(x[few], noise.only(few)), start[few])
    assert (start != x).flatten(1).any(1).sum() > 25


@pytest.mark.parametrize("norm", ["L0", "patch"])
def test_what_is_inside_is_what_counting_says(norm):
    x = torch.rand(300, 2, 6, 6)
    share = torch.linspace(0, 0.3, 300)[:, None, None, None]
    x_adv = torch.where(torch.rand(300, 2, 6, 6) < share, torch.rand(300, 2, 6, 6), x)
    inside = Threat(norm, SIZES[norm]).inside(x_adv, x)
    expected = [inside_by_hand(a, c, norm, SIZES[norm]) for a, c in zip(x_adv, x, strict=True)]
    assert inside.tolist() == expected
    assert 20 < sum(expected) < 280


@pytest.mark.parametrize("norm", ["L0", "patch"])
def test_a_projection_keeps_what_changed_most(norm):
    """No other choice of pixels, or window, is nearer to what is projected."""
    x, far = torch.rand(20, 3, 6, 6), 3 * torch.rand(20, 3, 6, 6) - 1
    threat = Threat(norm, SIZES[norm])
    near = threat.project(far, x)
    assert threat.inside(near, x).all()
    assert torch.equal(threat.project(near, x), near)
    gain = (far.clamp(0, 1) - x).square().sum(1)
    kept = torch.where((near != x).any(1), gain, 0).flatten(1).sum(1)
    if norm == "L0":
        best = gain.flatten(1).sort(dim=1).values[:, -4:].sum(1)
    else:
        best = gain.unfold(1, 3, 1).unfold(2, 3, 1).sum((3, 4)).flatten(1).amax(1)
    torch.testing.assert_close(kept, best)


@pytest.mark.parametrize("norm", ["L0", "patch"])
def test_a_corner_gains_most_of_all_that_is_allowed(norm):
    x, slope = torch.rand(20, 3, 6, 6), torch.randn(20, 3, 6, 6)
    threat = Threat(norm, SIZES[norm])
    corner = threat.corner(x, slope)
    assert threat.inside(corner, x).all()
    gained = (slope * (corner - x)).flatten(1).sum(1)
    for number in range(40):
        other = threat.random_start(x, Noise(number, torch.arange(20)))
        assert (gained >= (slope * (other - x)).flatten(1).sum(1)).all()
    every = slope.clamp(min=0) * (1 - x) - slope.clamp(max=0) * x
    if norm == "L0":
        best = every.sum(1).flatten(1).sort(dim=1).values[:, -4:].sum(1)
    else:
        best = every.sum(1).unfold(1, 3, 1).unfold(2, 3, 1).sum((3, 4)).flatten(1).amax(1)
    torch.testing.assert_close(gained, best)


def test_random_patches_are_everywhere():
    x = torch.full((4000, 1, 5, 5), 0.5)
    start = Threat("patch", 2).random_start(x, Noise(0, torch.arange(4000)))
    changed = (start != x).float().mean((0, 1))
    torch.testing.assert_close(changed[0, 0], torch.tensor(1 / 16), rtol=0, atol=0.02)
    torch.testing.assert_close(changed[4, 4], torch.tensor(1 / 16), rtol=0, atol=0.02)
    torch.testing.assert_close(changed[2, 2], torch.tensor(4 / 16), rtol=0, atol=0.03)


@pytest.mark.parametrize("norm", ["L0", "patch"])
def test_a_mask_is_kept_exactly(norm):
    x, free = torch.rand(30, 3, 6, 6), torch.rand(30, 1, 6, 6) < 0.5
    threat = Threat(norm, SIZES[norm]).bound(free)
    noise = Noise(0, torch.arange(30))
    for made in (
        threat.random_start(x, noise),
        threat.project(torch.rand_like(x), x),
        threat.corner(x, torch.randn_like(x)),
    ):
        assert threat.inside(made, x).all()
        assert torch.equal(made[~free.expand_as(x)], x[~free.expand_as(x)])
    assert not threat.inside(1 - x, x).any()


def test_a_spatial_threat_brings_back_what_is_no_rendering():
    x = torch.rand(3, 1, 8, 8)
    threat = Threat("spatial", 0.5)
    allowed = threat.random_start(x, Noise(0, torch.arange(3)))
    beyond = Threat("spatial", 1).random_start(x, Noise(0, torch.arange(3)))
    assert torch.equal(threat.stored(allowed, x), allowed)
    assert torch.equal(threat.stored(torch.rand_like(x), x), x)
    assert threat.inside(beyond, x).tolist() == (threat.distance(beyond, x) <= 0.5).tolist()


@pytest.mark.parametrize(
    ("norm", "eps", "message"),
    [
        ("L0", 0.5, "a whole number of pixels under L0, 1 or more, got 0.5"),
        ("L0", 0, "1 or more, got 0"),
        ("patch", 2.5, "a whole number of pixels a side of the patch, 1 or more, got 2.5"),
        ("patch", 8 / 255, "got 0.0313"),
        ("spatial", 1.5, "above 0 and at most 1, got 1.5"),
        ("spatial", 0, "above 0 and at most 1, got 0"),
        ("spatial", float("nan"), "above 0 and at most 1, got nan"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(norm, eps, message):
    with pytest.raises(UserError, match=message):
        Threat(norm, eps)


def test_a_size_that_the_images_cannot_have_is_refused():
    with pytest.raises(UserError, match="9 x 9 pixels does not fit into images of 8 x 12"):
        Threat("patch", 9).geometry.fitting((1, 8, 12))
    with pytest.raises(UserError, match="no more than 64 pixels"):
        Threat("L0", 65).geometry.fitting((3, 8, 8))
    for name in GEOMETRIES.names():
        Threat(name, 1).geometry.fitting((1, 8, 8))


def test_a_mask_cannot_hold_what_is_rotated():
    with pytest.raises(UserError, match="leave --mask out"):
        Threat("spatial", 1, mask="border:width=1")


@every_norm
def test_what_needs_a_ball_is_refused_in_one_line(norm):
    x, threat = torch.rand(2, 1, 8, 8), Threat(norm, SIZES[norm])
    assert not threat.is_ball
    for asked in (
        lambda: threat.steepest(x),
        lambda: threat.direction(x, Noise(0, torch.arange(2))),
        lambda: threat.radial_start(x, Noise(0, torch.arange(2))),
        lambda: threat.dual(x),
    ):
        with pytest.raises(UserError, match=f"the threat {norm} does not have: use --norm"):
            asked()
    with pytest.raises(UserError, match="says nothing about"):
        threat.radius_in("L2", 64)
    with pytest.raises(UserError, match="says nothing about"):
        Threat("L2", 1).radius_in(norm, 64)
    assert threat.radius_in(norm, 64) == threat.eps
    assert threat.probed == Threat("Linf", 8 / 255)
    assert threat.shrunk(0.9) == threat
    assert str(threat) == f"{norm} {SIZES[norm]:g}"


def test_a_ball_is_looked_at_itself():
    threat = Threat("L2", 0.5)
    assert threat.probed is threat
    assert threat.shrunk(0.9) == Threat("L2", 0.45)
    assert threat.diameter((3, 8, 8)) == 192**0.5
