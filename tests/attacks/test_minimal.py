"""Minimal-norm attacks: known distances, shifted logits, saturated pixels, sane norms on digits."""

import pytest
import torch
from torch import nn

from robustbench_cli.attacks import ATTACKS
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.evaluation.batch_attack import attack_batch

DUAL = {"Linf": 1.0, "L2": 2.0, "L1": float("inf")}
RANGE = {"Linf": (0.02, 0.1), "L2": (0.15, 0.6), "L1": (0.1, 0.28)}
"""Distances far enough from the box, and from the steps that C&W takes."""

QUICK = [
    ("deepfool:overshoot=0.001", "L2"),
    ("deepfool:overshoot=0.001", "Linf"),
    ("ddn:steps=60,radius=0.5", "L2"),
    ("fmn:steps=40", "L1"),
    ("fmn:steps=40", "L2"),
    ("fmn:steps=40", "Linf"),
    ("cw-l2:steps=30,searches=3,c=0.3", "L2"),
    ("cw-linf:steps=10,rate=0.02,c=0.1,largest=0.3", "Linf"),
    ("lbfgs:steps=10,searches=3,c=0.1", "L2"),
    ("perceptual:gamma=0,kappa=0.001,s=0.001,steps=30", "L2"),
    ("fab:steps=10", "L1"),
    ("fab:steps=10", "Linf"),
    ("fab-t:steps=10,targets=4", "L2"),
]
PRECISE = {
    "cw-l2": "cw-l2:steps=100,searches=5,c=0.02",
    "cw-linf": "cw-linf:steps=60,rate=0.001,decay=0.99,c=0.1,largest=0.5",
    "lbfgs": "lbfgs:c=0.01,searches=7,steps=15",
}
"""What needs more of an effort to come within one per cent."""

every_attack = pytest.mark.parametrize(("text", "norm"), QUICK)


def test_every_minimal_attack_is_measured_here():
    # Those without a gradient need thousands of queries: see test_decision.py.
    attacks = {name: ATTACKS.build(Spec(name)) for name in ATTACKS.names()}
    minimal = {name for name, each in attacks.items() if each.minimal and not each.black_box}
    assert minimal == {Spec.parse(text).name for text, _ in QUICK}


class Planes(nn.Module):
    """Five classes with one plane between any two of them, and steep enough logits that the
    cross-entropy sees only the nearest."""

    def __init__(self, shift=0.0):
        super().__init__()
        weight = 8 * torch.randn(5, 64, generator=torch.Generator().manual_seed(1))
        self.weight, self.shift = nn.Parameter(weight, requires_grad=False), shift

    def forward(self, x):
        return (x.flatten(1) - 0.5) @ self.weight.T.to(x) + self.shift

    def distances(self, x, y, norm):
        """To the plane of every class (B, 5), in closed form where the box is out of reach."""
        gap = self(x).gather(1, y[:, None]) - self(x)
        slope = torch.linalg.vector_norm(self.weight[y][:, None] - self.weight, DUAL[norm], dim=2)
        return (gap / slope.clamp_min(1e-9)).scatter(1, y[:, None], torch.inf)


def examples(norm, runner_up=True, count=4):
    """Images well inside the box; ``runner_up``: the nearest plane has the second largest logit.

    What follows the gradient of a margin goes to the runner-up, which need not be the nearest.
    """
    net, low_high = Planes(), RANGE[norm]
    source = torch.Generator().manual_seed(2)
    x = (0.5 + 0.15 * torch.randn(4000, 1, 8, 8, generator=source)).clamp(0.2, 0.8)
    logits = net(x)
    y = logits.argmax(1)
    all_of_them = net.distances(x, y, norm)
    two = all_of_them.sort(1).values[:, :2]
    fit = (two[:, 0] > low_high[0]) & (two[:, 0] < low_high[1])
    second = logits.argsort(1, descending=True)[:, 1] == all_of_them.argmin(1)
    fit &= (second & (two[:, 1] > 1.4 * two[:, 0])) if runner_up else ~second
    return x[fit][:count], y[fit][:count], two[fit][:count, 0]


def run(net, x, y, text, norm, ids=None, **rest):
    noise = Noise(0, torch.arange(len(y)) if ids is None else ids)
    attack = ATTACKS.build(Spec.parse(text))
    # The radius must not matter.
    return attack_batch(net, x, y, attack, Threat(norm, 1e-3), noise, **rest)


@every_attack
def test_a_plane_is_found_at_its_distance(text, norm):
    x, y, distance = examples(norm)
    found = run(Planes(), x, y, PRECISE.get(text.partition(":")[0], text), norm)
    share = found.norm / distance
    assert found.broken.all()
    assert (share > 1 - 1e-5).all()
    assert (share < 1.01).all(), share


@pytest.mark.parametrize("norm", ["L2", "Linf"])
def test_deepfool_goes_to_the_nearest_plane_not_to_the_runner_up(norm):
    x, y, distance = examples(norm, runner_up=False)
    found = run(Planes(), x, y, "deepfool:overshoot=0.001", norm)
    assert len(y) == 4
    assert (found.norm / distance < 1.01).all()
    overshot = run(Planes(), x, y, "deepfool", norm)
    torch.testing.assert_close(overshot.norm, 1.02 * distance, rtol=0.01, atol=0)
    astray = run(Planes(), x, y, "deepfool:candidates=2,overshoot=0.001", norm)
    assert (astray.norm > 1.01 * distance).all()
    # A gradient for each candidate and look, none for the other classes.
    assert (astray.backwards % 2 == 0).all()
    assert (astray.backwards <= 2 * (astray.forwards - 2)).all()


@every_attack
def test_what_is_added_to_all_logits_changes_nothing(text, norm):
    """Codes that mask the true class with zero break down where all logits are negative."""
    x, y, _ = examples(norm)
    up, down = (run(Planes(shift), x.double(), y, text, norm) for shift in (50.0, -50.0))
    assert up.broken.all()
    torch.testing.assert_close(up.norm, down.norm, rtol=1e-3, atol=0)


@every_attack
def test_examples_are_independent_and_slots_do_not_matter(text, norm, model, batch):
    """A subset in another order, in fewer slots than it has rows, gives the same answers."""
    model.eval()
    x, y = batch[0], model(batch[0]).argmax(1)
    together = run(model, x, y, text, norm)
    rows = torch.tensor([4, 0, 5, 3])
    queued = run(model, x[rows], y[rows], text, norm, ids=rows, slots=3)
    torch.testing.assert_close(queued.norm, together.norm[rows], rtol=1e-4, atol=0)
    assert torch.equal(queued.step, together.step[rows])
    assert torch.equal(queued.broken, together.broken[rows])
    assert together.broken.float().mean() > 0.5


@every_attack
def test_images_are_in_the_box_wrong_and_as_far_as_is_said(text, norm, digits_model):
    net, x, y = digits_model
    x, y = x[:4], y[:4]
    found = run(net, x, y, text, norm)
    assert ((found.x >= 0) & (found.x <= 1)).all()
    assert found.broken.any()
    assert torch.equal(net(found.x).argmax(1) != y, found.broken)
    distance = Threat(norm, 1).distance(found.x, x)
    torch.testing.assert_close(distance[found.broken], found.norm[found.broken])
    assert found.norm[~found.broken].isinf().all()


@every_attack
def test_an_example_at_the_boundary_needs_next_to_nothing(text, norm):
    x, y, _ = examples("L2")
    net = Planes()
    across = run(net, x, y, "deepfool:overshoot=0.001", "L2").x
    label = net(across).argmax(1)
    found = run(net, across, label, text, norm)
    assert found.broken.all()
    # A part in a hundred of how far they were; C&W's first step is as long as its learning rate.
    bound = {"L1": 0.05, "L2": 0.05, "Linf": 0.012}[norm]
    assert (found.norm < bound).all(), found.norm


def test_saturated_pixels_move_under_cw_l2():
    """Without the shrink before atanh no pixel of a black-and-white image would ever change."""
    x = (torch.rand(4, 1, 8, 8) < 0.5).float()
    y = Planes()(x).argmax(1)
    found = run(Planes(), x, y, "cw-l2:steps=60,searches=2,rate=0.2,c=1", "L2")
    nearest = run(Planes(), x, y, "ddn:steps=60", "L2")
    assert found.broken.all()
    assert (found.norm < 2 * nearest.norm).all()


def test_cw_l2_does_not_give_up_before_it_has_got_going():
    """Black-and-white images gain less than a part in 10000 during the first tenth of the steps."""
    x = (torch.rand(3, 1, 8, 8) < 0.5).float()
    y = Planes()(x).argmax(1)
    assert run(Planes(), x, y, "cw-l2:steps=200,searches=1,rate=0.05,c=1", "L2").broken.all()


def test_fmn_is_not_held_up_by_the_box():
    """Half of every step is clipped away, so that the linearised distance is never enough."""
    net = Planes()
    x = (torch.rand(6, 1, 8, 8) < 0.5).float()
    y = net(x).argmax(1)
    assert run(net, x, y, "fmn:steps=40", "L2").broken.all()


def test_ddn_follows_gradients_whose_squares_vanish():
    """Logits so steep that the cross-entropy's gradient is 1e-30: zero, once it is squared."""

    class Steep(nn.Module):
        def forward(self, x):
            score = 69 * (1 + 2 * (0.6 - x.flatten(1).mean(1)) / 0.6)
            return torch.stack([score / 2, -score / 2], 1)

    x = torch.full((2, 1, 4, 4), 0.6)
    found = run(Steep(), x, torch.zeros(2, dtype=torch.long), "ddn:steps=60", "L2")
    assert found.broken.all()
    torch.testing.assert_close(found.norm, torch.full((2,), 4 * 0.3), rtol=0.01, atol=0)


def test_ddn_can_round_to_grey_levels(digits_model):
    net, x, y = digits_model
    found = run(net, x[:4], y[:4], "ddn:steps=20,levels=256", "L2")
    moved = found.x[found.step > 0] * 255
    assert len(moved)
    torch.testing.assert_close(moved, moved.round(), rtol=0, atol=1e-3)


def test_each_stops_by_its_own_rule():
    """DeepFool once the class has changed, C&W in Linf at its smallest tau or largest c."""
    x, y, _ = examples("Linf")
    assert (run(Planes(), x, y, "deepfool", "Linf").forwards < 8).all()
    looks = run(Planes(), x, y, "cw-linf:steps=10,rate=0.02,c=0.1,least=0.5", "Linf").forwards
    assert (looks < 30).all()
    assert len(set(run(Planes(), x, y, "cw-l2:searches=3,steps=50", "L2").forwards.tolist())) > 1


@pytest.mark.parametrize(
    ("text", "norm"),
    [
        ("ddn", "L2"),
        ("fmn", "L2"),
        ("fmn", "Linf"),
        pytest.param("cw-l2:steps=150,searches=3,c=0.2,rate=0.05", "L2", marks=pytest.mark.slow),
        pytest.param(
            "cw-linf:steps=60,rate=0.02,decay=0.95,c=0.01,largest=0.1",
            "Linf",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_norms_on_a_trained_net_are_those_of_deepfool_or_less(text, norm, digits_model):
    net, x, y = digits_model
    right = net(x).argmax(1) == y
    x, y = x[right][:8], y[right][:8]
    found, known = (run(net, x, y, name, norm).norm.mean() for name in (text, "deepfool"))
    assert 0.8 * known < found < 1.02 * known


@pytest.mark.parametrize(
    ("text", "name", "field", "value"),
    [
        ("ddn300", "ddn", "steps", 300),
        ("fmn10", "fmn", "steps", 10),
        ("cwl2", "cw-l2", "searches", 9),
        ("cwlinf", "cw-linf", "decay", 0.9),
        ("deepfool100", "deepfool", "steps", 100),
        ("l-bfgs", "lbfgs", "steps", 100),
    ],
)
def test_other_ways_to_write_them(text, name, field, value):
    attack = ATTACKS.build(Spec.parse(text))
    assert ATTACKS.name_of(attack) == name
    assert getattr(attack, field) == value
    assert attack.minimal


@pytest.mark.parametrize(
    "text", ["ddn:gamma=1", "cw-l2:c=0", "fmn:step=0", "deepfool:candidates=1"]
)
def test_impossible_parameters_are_refused(text):
    with pytest.raises(UserError):
        ATTACKS.build(Spec.parse(text))
