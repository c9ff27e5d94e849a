"""The geometry: ball, box, starts and steps."""

import pytest
import torch

from robustbench_cli.config import validated
from robustbench_cli.errors import UserError
from robustbench_cli.noise import Noise
from robustbench_cli.registry import radius
from robustbench_cli.threat import Threat

NORMS = ["Linf", "L2"]


@pytest.mark.parametrize("norm", NORMS)
def test_projection_lands_inside_and_leaves_what_is_inside(norm):
    x = torch.rand(40, 3, 5, 5)
    threat = Threat(norm, 0.3)
    far = threat.project(x + torch.randn_like(x), x)
    assert threat.inside(far, x).all()
    torch.testing.assert_close(threat.project(far, x), far, rtol=0, atol=1e-6)
    assert torch.equal(threat.project(x, x), x)


@pytest.mark.parametrize("norm", NORMS)
def test_random_start_fills_the_ball(norm):
    x = torch.full((500, 1, 4, 4), 0.5)
    threat = Threat(norm, 0.2)
    start = threat.random_start(x, Noise(0, torch.arange(500)))
    assert threat.inside(start, x).all()
    distance = threat.distance(start, x)
    # Uniform by volume: the radius to the power of the dimension is uniform (L2).
    share = (distance / 0.2) ** 16
    assert abs(share.mean() - (0.5 if norm == "L2" else 16 / 32)) < 0.06


def test_steepest_has_unit_length_and_survives_zero():
    grad = torch.randn(8, 3, 4, 4)
    assert set(Threat("Linf", 1).steepest(grad).abs().unique().tolist()) == {1.0}
    lengths = Threat("L2", 1).steepest(grad).flatten(1).norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones(8))
    assert not Threat("L2", 1).steepest(torch.zeros_like(grad)).any()


def test_inside_refuses_what_is_too_far_outside_the_box_or_not_a_number():
    x = torch.full((4, 1, 2, 2), 0.95)
    threat = Threat("Linf", 0.1)
    bad = x.clone()
    bad[0] += 0.06  # inside the ball, outside the box
    bad[1] -= 0.11
    bad[2, 0, 0, 0] = float("nan")
    assert threat.inside(bad, x).tolist() == [False, False, False, True]


@pytest.mark.parametrize(
    ("eps", "norm", "message"),
    [
        (0, "Linf", "must be positive"),
        (-0.1, "L2", "must be positive"),
        (8, "Linf", "did you mean '8/255'"),
        (128, "L2", "did you mean '128/255'"),
    ],
)
def test_radii_that_make_no_sense_are_refused(eps, norm, message):
    with pytest.raises(ValueError, match=message):
        Threat(norm, eps)


def test_fractions_are_read_and_others_named():
    assert validated(Threat, {"eps": "8/255"}).eps == 8 / 255
    assert validated(Threat, {"norm": "linf"}).norm == "Linf"
    with pytest.raises(UserError, match=r"eps.*'eight'"):
        validated(Threat, {"eps": "eight"})
    with pytest.raises(UserError, match=r"norm.*'Linf' or 'L2'"):
        validated(Threat, {"norm": "l3"})


def test_a_radius_is_shown_as_it_was_meant():
    assert [radius(e) for e in (8 / 255, 0.031, 0.3, 128 / 255)] == [
        "8/255",
        "0.031",
        "0.3",
        "128/255",
    ]
