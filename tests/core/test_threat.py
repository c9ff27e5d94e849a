"""The geometry: ball, box, starts and steps."""

import pytest
import torch

from robustbench_cli.config.schema import validated
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.threat import Threat
from robustbench_cli.core.threat_text import format_eps

NORMS = ["Linf", "L2", "L1"]


@pytest.mark.parametrize("norm", NORMS)
def test_projection_lands_inside_and_leaves_what_is_inside(norm):
    x = torch.rand(40, 3, 5, 5)
    threat = Threat(norm, 0.3)
    far = threat.project(x + torch.randn_like(x), x)
    assert threat.inside(far, x).all()
    torch.testing.assert_close(threat.project(far, x), far, rtol=0, atol=1e-6)
    assert torch.equal(threat.project(x, x), x)


def test_a_ball_moves_with_images_that_are_overwritten():
    threat, x, far = Threat("Linf", 0.1), torch.full((2, 1, 2, 2), 0.5), torch.ones(2, 1, 2, 2)
    assert torch.equal(threat.project(far, x), x + 0.1)
    x += 0.3
    assert torch.equal(threat.project(far, x), x + 0.1)
    assert torch.equal(Threat("Linf", 0.15).project(far, x), x + 0.15)
    with torch.inference_mode():
        assert torch.equal(threat.project(far, x.clone()), x + 0.1)
    start = x.clone().requires_grad_()
    threat.project(far, start).sum().backward()
    assert torch.equal(start.grad, torch.ones_like(x))


@pytest.mark.parametrize(
    ("norm", "low", "high"), [("Linf", 0.0, 1.0), ("L2", 0.5, 0.5), ("L2", 0.0, 1.0)]
)
def test_the_projection_brings_no_two_images_further_apart(norm, low, high):
    """In L2, whatever the norm.

    A nearest point of a convex set does that: of ball and box in Linf, of the ball in L2 where it
    is within the box, and of the box after the ball elsewhere.  L1's is found by bisection, less
    exactly than is asked here.
    """
    clean = low + (high - low) * torch.rand(200, 1, 2, 2).double()
    threat, size = Threat(norm, 0.3), torch.logspace(-2, 1, 200).double()[:, None, None, None]
    u = clean + size * torch.randn(200, 1, 2, 2).double()
    v = u + size / 4 * torch.randn(200, 1, 2, 2).double()
    apart, were = (
        (a - b).flatten(1).norm(dim=1)
        for a, b in ((threat.project(u, clean), threat.project(v, clean)), (u, v))
    )
    assert (apart <= were + 1e-12).all()


def check_even(share, up):
    """Numbers in [0, 1] are uniform, and pixels as often lighter as darker."""
    assert abs(share.mean() - 0.5) < 0.06
    assert abs(share.var() - 1 / 12) < 0.02
    assert up.float().mean().sub(0.5).abs() < 0.03


@pytest.mark.parametrize("norm", NORMS)
def test_random_start_fills_the_ball(norm):
    x = torch.full((500, 1, 4, 4), 0.5)
    threat = Threat(norm, 0.2)
    start = threat.random_start(x, Noise(0, torch.arange(500)))
    assert threat.inside(start, x).all()
    distance = threat.distance(start, x)
    # Uniform by volume: the radius to the power of the dimension is uniform.
    check_even((distance / 0.2) ** 16, start > x)


@pytest.mark.parametrize("norm", NORMS)
def test_radial_starts_are_as_often_near_as_far(norm):
    """Uniform in the radius whatever the dimension; by volume it is 1 - 1/193 of eps on average."""
    x = torch.full((500, 3, 8, 8), 0.5)
    threat = Threat(norm, 0.2)
    start = threat.radial_start(x, Noise(0, torch.arange(500)))
    assert threat.inside(start, x).all()
    check_even(threat.distance(start, x) / 0.2, start > x)
    by_volume = threat.random_start(x, Noise(0, torch.arange(500)))
    assert (threat.distance(by_volume, x) / 0.2).mean() > 0.98


def test_a_radial_start_belongs_to_its_example():
    x, rows = torch.rand(20, 3, 5, 5), torch.tensor([17, 3, 8])
    noise = Noise(0, torch.arange(20))
    start = Threat("L2", 0.5).radial_start(x, noise)
    torch.testing.assert_close(
        Threat("L2", 0.5).radial_start(x[rows], noise.only(rows)), start[rows]
    )


def test_steepest_has_unit_length_and_survives_zero():
    grad = torch.randn(8, 3, 4, 4)
    assert set(Threat("Linf", 1).steepest(grad).abs().unique().tolist()) == {1.0}
    lengths = Threat("L2", 1).steepest(grad).flatten(1).norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones(8))
    assert not Threat("L2", 1).steepest(torch.zeros_like(grad)).any()
    assert not Threat("L1", 1).steepest(torch.zeros_like(grad)).any()


def test_a_sparse_step_moves_the_steepest_coordinates_by_the_same_amount():
    grad = torch.randn(8, 3, 10, 10)
    step = Threat("L1", 1).steepest(grad).flatten(1)
    torch.testing.assert_close(step.abs().sum(1), torch.ones(8))
    flat = grad.flatten(1)
    for row in range(8):
        moved = step[row] != 0
        assert moved.sum() == 15  # a twentieth of 300
        assert flat[row].abs()[moved].min() > flat[row].abs()[~moved].max()
        assert torch.equal(step[row][moved].sign(), flat[row][moved].sign())
        torch.testing.assert_close(step[row][moved].abs(), torch.full((15,), 1 / 15))


@pytest.mark.parametrize(("norm", "order"), [("Linf", 1), ("L2", 2), ("L1", float("inf"))])
def test_the_dual_norm_is_what_a_unit_step_can_gain(norm, order):
    grad = torch.randn(5, 40)
    expected = torch.linalg.vector_norm(grad, ord=order, dim=1)
    torch.testing.assert_close(Threat(norm, 1).dual(grad), expected)
    if norm != "L1":
        gained = (grad * Threat(norm, 1).steepest(grad)).sum(1)
        torch.testing.assert_close(gained, expected)


def test_what_is_stored_is_untouched_where_it_is_allowed():
    x = torch.full((2, 1, 2, 2), 0.5)
    x_adv = x + torch.tensor([0.05, 0.2]).view(2, 1, 1, 1)
    threat = Threat("Linf", 0.1)
    stored = threat.stored(x_adv, x)
    assert torch.equal(stored[0], x_adv[0])
    torch.testing.assert_close(stored[1], x[1] + 0.1)


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
        (3060, "L1", "did you mean '3060/255'"),
    ],
)
def test_radii_that_make_no_sense_are_refused(eps, norm, message):
    with pytest.raises(ValueError, match=message):
        Threat(norm, eps)


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_random_directions_have_length_one_and_are_each_example_s_own(norm):
    threat, x = Threat(norm, 0.1), torch.zeros(5, 1, 6, 6).double()
    t = threat.direction(x, Noise(0, torch.arange(5)))
    torch.testing.assert_close(threat.distance(t, x), torch.ones(5).double())
    assert (t < 0).any()
    assert (t > 0).any()
    other = threat.direction(x[:2], Noise(0, torch.tensor([3, 0])))
    torch.testing.assert_close(other, t[[3, 0]], rtol=0, atol=0)
    assert not torch.equal(t[0], t[1])


def test_fractions_are_read_and_others_named():
    assert validated(Threat, {"eps": "8/255"}).eps == 8 / 255
    assert validated(Threat, {"norm": "linf"}).norm == "Linf"
    with pytest.raises(UserError, match=r"eps.*'eight'"):
        validated(Threat, {"eps": "eight"})
    with pytest.raises(UserError, match="norm: must be L0, L1, L2, Linf, patch or spatial, got"):
        validated(Threat, {"norm": "l3"})


def test_a_radius_is_shown_as_it_was_meant():
    assert [format_eps(e) for e in (8 / 255, 0.031, 0.3, 128 / 255)] == [
        "8/255",
        "0.031",
        "0.3",
        "128/255",
    ]


@pytest.mark.parametrize(
    ("norm", "other", "radius_"),
    [
        ("Linf", "L2", 0.43471),  # 2/255 sqrt(3072), as in Carmon et al. (2019)
        ("Linf", "L1", 2 / 255 * 3072),
        ("Linf", "Linf", 2 / 255),
        ("L2", "L2", 2 / 255),
        ("L2", "Linf", 2 / 255),
        ("L1", "L2", 2 / 255),
        ("L2", "L1", 2 / 255 * 3072**0.5),
    ],
)
def test_the_smallest_ball_around_a_ball_in_another_norm(norm, other, radius_):
    threat = Threat(norm, 2 / 255)
    reach = threat.radius_in(other, 3072)
    assert reach == pytest.approx(radius_, rel=1e-5)
    # It holds the corners and the poles of the ball, and one of them is on its border.
    corner = torch.ones(2, 3072, dtype=torch.float64)
    corner[1, 1:] = 0
    corner *= (threat.eps / threat.distance(corner, 0 * corner))[:, None]
    far = Threat(other, 1.0).distance(corner, 0 * corner)
    assert float(far.max()) == pytest.approx(reach, rel=1e-5)


@pytest.fixture
def half():
    """Thirty colour images and the same twelve of sixteen free pixels in each."""
    free = torch.ones(4, 4, dtype=torch.bool)
    free[1] = False
    return torch.rand(30, 3, 4, 4), free.expand(30, 1, 4, 4)


@pytest.mark.parametrize("norm", NORMS)
def test_under_a_mask_the_ball_is_that_of_the_free_pixels(norm, half):
    """As if the others were not there at all: the change is projected without them."""
    x, free = half
    threat = Threat(norm, 0.3)
    far = x + torch.randn_like(x)
    masked = threat.bound(free).project(far, x)
    open_ = free[0, 0].flatten().nonzero().squeeze(1)
    small, there = (t.flatten(2)[..., open_] for t in (x, far))
    torch.testing.assert_close(
        masked.flatten(2)[..., open_], threat.project(there, small), rtol=0, atol=1e-6
    )
    closed = ~free.expand_as(x)
    assert torch.equal(masked[closed], x[closed])
    assert threat.bound(free).inside(masked, x).all()
    assert torch.equal(threat.bound(free).stored(far, x), masked)


@pytest.mark.parametrize("norm", NORMS)
def test_under_a_mask_starts_fill_the_ball_of_the_free_pixels(norm):
    x = torch.full((500, 1, 4, 4), 0.5)
    free = torch.rand(500, 1, 4, 4) < 0.6
    threat = Threat(norm, 0.2).bound(free)
    start = threat.random_start(x, Noise(0, torch.arange(500)))
    assert torch.equal(start[~free], x[~free])
    share = (threat.distance(start, x) / 0.2) ** free.flatten(1).sum(1)
    assert abs(share.mean() - 0.5) < 0.06
    assert abs(share.var() - 1 / 12) < 0.02


@pytest.mark.parametrize("norm", NORMS)
def test_under_a_mask_steps_and_directions_keep_their_length(norm, half):
    x, free = half
    threat = Threat(norm, 0.3).bound(free)
    noise = Noise(0, torch.arange(30))
    for change in (threat.steepest(torch.randn_like(x)), threat.direction(x, noise)):
        torch.testing.assert_close(threat.distance(x + change, x), torch.ones(30))
        assert not change[~free.expand_as(x)].any()


@pytest.mark.parametrize("norm", NORMS)
def test_where_nothing_may_change_nothing_does_and_nothing_is_nan(norm, half):
    x, free = half
    threat = Threat(norm, 0.3).bound(free & False)
    noise = Noise(0, torch.arange(30))
    assert torch.equal(threat.random_start(x, noise), x)
    assert torch.equal(threat.radial_start(x, noise), x)
    assert torch.equal(threat.project(1 - x, x), x)
    assert not threat.steepest(torch.randn_like(x)).any()
    assert not threat.direction(x, noise).any()


@pytest.mark.parametrize("norm", NORMS)
def test_a_mask_of_ones_changes_no_bit(norm):
    x, noise = torch.rand(40, 3, 5, 5), Noise(0, torch.arange(40))
    threat, grad = Threat(norm, 0.3), torch.randn(40, 3, 5, 5)
    masked = threat.bound(torch.ones(40, 3, 5, 5).bool())
    for of in (
        lambda t: t.random_start(x, noise),
        lambda t: t.radial_start(x, noise),
        lambda t: t.direction(x, noise),
        lambda t: t.steepest(grad),
        lambda t: t.project(x + grad, x),
    ):
        assert torch.equal(of(masked), of(threat))


def test_a_bound_threat_goes_with_its_images(half):
    x, free = half
    free = free & (torch.arange(30) % 2 == 0)[:, None, None, None]
    threat = Threat("Linf", 0.3).bound(free)
    rows = torch.tensor([7, 2, 29])
    few = threat.only(rows)
    assert torch.equal(few.free, free[rows])
    assert torch.equal(few.joined(threat).free, torch.cat([free[rows], free]))
    assert few.untouched(1 - x[rows], x[rows]).tolist() == [False, False, False]
    with pytest.raises(UserError, match="by the size of the ball alone"):
        threat.radius_in("L2", 48)
