"""AutoAttack's members against the official code: the same walks, planes, squares and verdicts."""

import copy
from dataclasses import replace

import pyautoattack
import pytest
import torch
from pyautoattack import autopgd_base, fab_projections
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted, L1_projection
from pyautoattack.fab_pt import FABAttack_PT
from pyautoattack.square import SquareAttack
from torch import nn

from robustbench_cli.attacks import ATTACKS, Task, _apgd
from robustbench_cli.attacks._planes import to_plane
from robustbench_cli.attacks._windows import bumps, sides
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat, onto_l1
from robustbench_cli.evaluation.batch_attack import attack_batch
from robustbench_cli.evaluation.search_model import SearchModel
from robustbench_cli.evaluation.tensors import Tensors

EPS = {"Linf": 0.1, "L2": 0.6, "L1": 1.5}
"""Radii at which about half of the digits fall."""
NORMS = list(EPS)
QUERIES = 200
CPU = torch.device("cpu")


def build(text):
    return ATTACKS.build(Spec.parse(text))


@pytest.fixture
def standing(digits_model):
    """The digits net, and images that it gets right."""
    net, x, y = digits_model
    right = net(x).argmax(1) == y
    return net, x[right], y[right]


SMALL = {"apgd-ce": {"steps": 25}, "apgd-t": {"steps": 25, "targets": 2}} | {
    "fab-t": {"steps": 15, "targets": 2},
    "square": {"queries": QUERIES},
}
"""Both sides are cut down alike: the full ensemble takes minutes."""


def official(net, x, y, threat):
    """The package's own cascade, member by member."""
    common = {"norm": threat.norm, "eps": threat.eps, "seed": 0, "device": CPU}
    balls = {"use_largereps": threat.norm == "L1"}
    ensemble = pyautoattack.AutoAttack(net, norm=threat.norm, eps=threat.eps, seed=0)
    ensemble.verbose = False
    ensemble.apgd = APGDAttack(net, n_iter=25, n_restarts=1, **balls, **common)
    ensemble.apgd_targeted = APGDAttack_targeted(
        net, n_iter=25, n_target_classes=2, **balls, **common
    )
    ensemble.fab = FABAttack_PT(net, n_iter=15, n_target_classes=2, **common)
    ensemble.square.n_queries = QUERIES
    with torch.random.fork_rng(), torch.no_grad():
        return ensemble.run_standard_evaluation(x, y, batch_size=len(x))[0]


@pytest.mark.parametrize("norm", NORMS)
def test_as_many_examples_fall_as_to_the_official_code(norm, standing, monkeypatch):
    net, x, y = standing
    x, y = x[:10], y[:10]
    threat, attack = Threat(norm, EPS[norm]), build("autoattack")
    members = {
        name: replace(member, **{"restarts": 1} if name == "apgd-ce" else {}, **SMALL[name])
        for name, member in attack.members(threat).items()
    }
    monkeypatch.setattr(type(attack), "members", lambda _self, _threat, _classes: members)
    found = attack_batch(net, x, y, attack, threat, Noise(0, torch.arange(len(y))))
    theirs = net(official(net, x, y, threat)).argmax(1) != y
    assert torch.equal(net(found.x).argmax(1) != y, found.broken)
    assert 0.2 < theirs.float().mean() < 0.8  # the radius decides something
    assert (theirs & ~found.broken).sum() <= 1
    assert found.broken.sum() >= theirs.sum() - 1


@pytest.fixture
def shortened(monkeypatch):
    """The official code with fewer steps, whoever builds it: the full ensemble takes minutes."""

    class Short(pyautoattack.AutoAttack):
        def __init__(self, *args, **settings):
            super().__init__(*args, **settings)
            self.apgd.n_iter, self.apgd_targeted.n_iter = 1, 10
            self.fab.n_iter, self.square.n_queries = 3, 50

    monkeypatch.setattr(pyautoattack, "AutoAttack", Short)


def test_the_reference_is_the_official_code_member_by_member(standing, shortened):
    """What ``autoattack-reference`` returns is what the package returns when called directly.

    What a member is said to have broken is what it breaks alone.
    """
    net, x, y = standing
    threat, noise = Threat("Linf", 0.12), Noise(3, torch.arange(len(y)))
    found = attack_batch(net, x, y, build("aa-reference"), threat, noise, slots=7)
    ensemble = pyautoattack.AutoAttack(net, norm="Linf", eps=0.12, seed=3, version="standard")
    ensemble.verbose = False
    with torch.no_grad():
        theirs, labels = ensemble.run_standard_evaluation(x, y, batch_size=7)
    assert torch.equal(found.broken, labels != y)
    torch.testing.assert_close(found.x[found.broken], theirs[found.broken], rtol=0, atol=1e-6)
    assert len({*found.by.tolist()}) > 2  # several members had something to break, and not all
    # It says which member broke what.
    left = torch.ones_like(y, dtype=torch.bool)
    for number, name in enumerate(("apgd-ce", "apgd-t", "fab-t", "square")):
        alone = attack_batch(
            net, x[left], y[left], build(f"aa-reference:only={name}"), threat,
            noise.only(left), slots=7,
        )  # fmt: skip
        assert torch.equal(found.by[left] == number, alone.broken)
        left = left & (found.by != number)


def test_the_reference_has_the_official_compositions():
    for version in ("standard", "plus", "rand"):
        reference = build(f"aa-reference:version={version}")
        ensemble = pyautoattack.AutoAttack(nn.Identity(), seed=0, version=version)
        assert [*reference.members(Threat("Linf", 0.1))] == ensemble.attacks_to_run


def test_a_member_that_a_composition_has_not_is_refused():
    with pytest.raises(UserError, match="the rand version has no square; it has apgd-ce, apgd"):
        build("aa-reference:version=rand,only=square")


def walked(net, x, y, attack, threat, start, dtype=torch.float64):
    """Iterates and losses of our machine from a given start, as the engine drives it."""
    clean = net(x)
    noise = Noise(0, torch.arange(len(y)))
    task = Task(
        x=x, y=y, clean=clean, threat=threat, noise=noise, restart_or_target=0, data=Tensors(x, y)
    )
    state = {**attack.begin(task), "x": start}
    search_model, taken, seen = SearchModel(model=net), torch.zeros_like(y), []
    while True:
        look, _, _ = search_model.observe(attack, state, task, taken)
        seen.append((state["x"].detach(), look.loss))
        over = attack.over(state, taken)
        state, taken = attack.move(state, look, task), taken + 1
        if over.all():
            return state, seen


def nearly_all_agree(asked, seen, best, state, *, atol, loss):
    """The same iterates, best points and losses as the official code's (``asked``, ``best``).

    Where the loss is flat, a rise in the last digit may or may not count: few rows may differ.
    """
    apart = torch.stack(
        [(a - b[0]).abs().flatten(1).amax(1) for a, b in zip(asked, seen, strict=True)]
    )
    agree = apart.amax(0) < atol
    assert agree.float().mean() > 0.9
    x, value = best
    torch.testing.assert_close(state["best"][agree], x[agree], rtol=0, atol=atol)
    torch.testing.assert_close(state["best_loss"][agree], value[agree], rtol=loss[0], atol=loss[1])


def wide(net):
    return copy.deepcopy(net).double()


@pytest.mark.parametrize(("norm", "steps"), [("Linf", 30), ("Linf", 100), ("L2", 30)])
def test_apgd_takes_the_official_steps(norm, steps, standing):
    net, x, y = standing
    net, x = wide(net), x.double()
    threat = Threat(norm, EPS[norm] / 2)
    start = threat.random_start(x, Noise(5, torch.arange(len(y))))
    asked = []

    def recorded(z):
        asked.append(z.detach().clone())
        return net(z)

    theirs = APGDAttack(recorded, n_iter=steps, norm=norm, eps=threat.eps, device=CPU)
    theirs.init_hyperparam(x)
    torch.set_default_dtype(torch.float64)  # the official code makes its step sizes from nothing
    try:
        best, _, best_loss, _ = theirs.attack_single_run(x, y, x_init=start)
    finally:
        torch.set_default_dtype(torch.float32)
    state, seen = walked(net, x, y, build(f"apgd-ce-{steps}"), threat, start)
    assert len(seen) == len(asked) == steps + 1
    nearly_all_agree(asked, seen, (best, best_loss), state, atol=1e-6, loss=(1e-6, 1e-9))


def test_apgd_in_l1_takes_the_official_steps_through_three_balls(standing, monkeypatch):
    net, x, y = standing
    threat, steps = Threat("L1", 0.8), 30
    noise = torch.randn_like(x)
    start = onto_l1(x + noise, x, 3 * threat.eps)
    asked = []

    def recorded(z):
        asked.append(z.detach().clone())
        return net(z)

    theirs = APGDAttack(recorded, n_iter=steps, norm="L1", eps=threat.eps, device=CPU)
    theirs.init_hyperparam(x)
    monkeypatch.setattr(torch, "randn_like", lambda _x: noise)
    # The official code takes what rounding leaves, (x + d) - d, for coordinates that have changed.
    monkeypatch.setattr(
        autopgd_base, "L0_norm", lambda z: (z.abs() > 1e-5).flatten(1).sum(1).float()
    )
    radii, iters = [3.0 * threat.eps, 2.0 * threat.eps, threat.eps], [9, 9, 12]
    best, _, best_loss, _ = theirs.decr_eps_pgd(x, y, radii, iters)
    state, seen = walked(net, x, y, build(f"apgd-ce-{steps}"), threat, start)
    assert len(seen) == len(asked) == steps + 3
    nearly_all_agree(asked, seen, (best, best_loss), state, atol=1e-4, loss=(1e-3, 1e-4))


@pytest.mark.filterwarnings("ignore:there are")  # of the official code: zero gradients
@pytest.mark.parametrize("steps", [10, 20])
def test_apgd_dlr_in_l1_leaves_the_images_that_the_official_code_leaves(
    steps, standing, monkeypatch
):
    """Image by image, from the same starts: what differs between two runs is the start alone."""
    net, x, y = standing
    threat, differ, ours, theirs = Threat("L1", 2.0), 0, 0, 0
    monkeypatch.setattr(
        autopgd_base, "L0_norm", lambda z: (z.abs() > 1e-6).flatten(1).sum(1).float()
    )
    for seed in range(3):
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
        monkeypatch.setattr(torch, "randn_like", lambda _x, noise=noise: noise)
        official = APGDAttack(
            net, n_iter=steps, norm="L1", eps=threat.eps, loss="dlr", use_largereps=True, device=CPU
        )
        fell = net(official.perturb(x.clone(), y.clone())).argmax(1) != y
        start = onto_l1(x + noise, x, 3 * threat.eps)
        _, seen = walked(net, x, y, build(f"apgd-dlr-{steps}"), threat, start)
        wrong = [(net(z).argmax(1) != y) & threat.inside(z, x) for z, _ in seen]
        broken = torch.stack(wrong).any(0)
        differ += int((broken != fell).sum())
        ours, theirs = ours + int(broken.sum()), theirs + int(fell.sum())
    assert 0.2 < theirs / (3 * len(y)) < 0.95  # the radius decides something
    assert differ <= 1
    assert abs(ours - theirs) <= 1


def test_the_checkpoints_are_the_official_ones():
    for steps in (5, 10, 30, 100):
        window, least, less = (max(int(s * steps), 1) for s in (0.22, 0.06, 0.03))
        checks, at = {}, 0
        while at + window <= steps:
            at += window
            checks[at] = window
            window = max(window - less, least)
        expected = [checks.get(i, 0) for i in range(steps + 1)]
        assert _apgd._checkpoint_windows(steps, CPU).tolist() == expected


PLANES = {
    "Linf": fab_projections.projection_linf,
    "L2": fab_projections.projection_l2,
    "L1": fab_projections.projection_l1,
}
LENGTHS = {"Linf": float("inf"), "L2": 2.0, "L1": 1.0}


@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize("norm", NORMS)
def test_projections_onto_planes_are_the_official_ones(norm, corners):
    t, w = torch.rand(400, 30), torch.randn(400, 30)
    if corners:
        t = torch.where(torch.rand_like(t) < 0.6, t.round(), t)
        w = torch.where(torch.rand_like(w) < 0.2, 0.0, w)
    # From planes through the point's neighbourhood to planes that miss the box.
    b = (w * torch.rand_like(t)).sum(1) * torch.linspace(0.2, 3, 400)
    ours = to_plane(t, w, b, norm)
    theirs = PLANES[norm](t, w, b)
    z = t + ours
    assert (z >= -1e-6).all()
    assert (z <= 1 + 1e-6).all()
    top, low = w.clamp(min=0).sum(1), w.clamp(max=0).sum(1)
    reached = (b < top - 1e-3) & (b > low + 1e-3)
    assert 50 < reached.sum() < 400
    assert ((w * z).sum(1) - b).abs()[reached].max() < 1e-4
    length, official_length = (
        torch.linalg.vector_norm(d, ord=LENGTHS[norm], dim=1) for d in (ours, theirs)
    )
    # The official search ends one breakpoint early now and then; ours may only be shorter.
    there = reached & (((w * (t + theirs)).sum(1) - b).abs() < 1e-4)
    assert (length <= official_length + 1e-4)[there].all()
    close = (length - official_length).abs() < 1e-4
    assert close[there].float().mean() > 0.95
    assert there[reached].float().mean() > 0.9


@pytest.mark.parametrize("norm", NORMS)
def test_a_plane_that_misses_the_box_leads_to_its_nearest_corner(norm):
    t, w = torch.rand(50, 12), torch.randn(50, 12)
    z = t + to_plane(t, w, torch.full((50,), 100.0), norm)
    torch.testing.assert_close(z, (w > 0).float())
    assert not to_plane(t, torch.zeros_like(w), torch.ones(50), norm).any()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", ["fab", "fab-t"])
def test_fab_finds_the_official_distances(name, norm, standing):
    net, x, y = standing
    x, y = x[:12], y[:12]
    threat, steps = Threat(norm, EPS[norm]), 15
    attack = build(f"{name}:steps={steps}" + (",targets=1" if name == "fab-t" else ""))
    found = attack_batch(net, x, y, attack, threat, Noise(0, torch.arange(len(y))))
    theirs = FABAttack_PT(net, norm=norm, n_iter=steps, eps=threat.eps, device=CPU)
    theirs.target_class = 2
    with torch.no_grad():
        x_adv = theirs.attack_single_run(x, y, is_targeted=name == "fab-t")
    fell = net(x_adv).argmax(1) != y
    expected = threat.distance(x_adv, x)
    assert fell.sum() >= 10
    assert found.broken[fell].all()
    # One part in a hundred, but for a path that a rounding sent to another facet.
    near = (found.norm / expected - 1).abs() < 0.01
    assert near[fell].float().mean() > 0.8
    assert (found.norm[fell] <= 1.1 * expected[fell]).all()


SIDES = {32: [29, 20, 14, 10, 7, 5, 4, 3], 28: [25, 18, 13, 9, 6, 4, 3, 2]}


@pytest.mark.parametrize("pixels", [32, 28])
def test_squares_shrink_when_the_official_ones_do(pixels):
    theirs = SquareAttack(None, n_queries=5000, p_init=0.8, resc_schedule=False)
    shape = (pixels, pixels)
    found = sides(5000, 0.8, shape, False, False, CPU).tolist()
    expected = [
        min(max(round((theirs.p_selection(i) * pixels**2) ** 0.5), 1), pixels) for i in range(5000)
    ]
    assert found == expected
    assert list(dict.fromkeys(found)) == SIDES[pixels]
    odd = sides(5000, 0.8, shape, True, False, CPU)
    assert (odd >= 3).all()
    assert ((odd % 2 == 1) | (odd == pixels)).all()
    theirs = SquareAttack(None, n_queries=700, p_init=0.8, resc_schedule=True)
    rescaled = sides(700, 0.8, shape, False, True, CPU).tolist()
    assert rescaled == [
        min(max(round((theirs.p_selection(i) * pixels**2) ** 0.5), 1), pixels) for i in range(700)
    ]


@pytest.mark.parametrize(("norm", "power"), [("L2", 2), ("L1", 4)])
def test_bumps_are_the_official_ones(norm, power, monkeypatch):
    theirs = SquareAttack(None, norm=norm)
    theirs.device = CPU
    table = bumps(11, power, CPU)
    for turned, coin in enumerate((0.0, 1.0)):
        monkeypatch.setattr(torch, "rand", lambda *_a, c=coin, **_k: torch.tensor([c]))
        for side in (2, 3, 5, 7, 8, 11):
            found = table[2 * side + turned]
            torch.testing.assert_close(found[:side, :side], theirs.eta(side))
            assert not found[side:].any()
            assert not found[:, side:].any()


def test_the_l1_projection_is_the_nearest_point_in_ball_and_box():
    """Against bisection in float64, far finer, and against the official code."""
    x = torch.rand(60, 1, 6, 6)
    x = torch.where(torch.rand_like(x) < 0.4, x.round(), x)
    delta = torch.randn_like(x) * torch.rand(60, 1, 1, 1) * 2
    eps = torch.rand(60) * 6 + 0.05
    ours = onto_l1(x + delta, x, eps)
    assert ((ours >= 0) & (ours <= 1)).all()
    assert ((ours - x).abs().flatten(1).sum(1) <= eps * (1 + 1e-5)).all()
    y, z = (x + delta).double().flatten(1), x.double().flatten(1)
    for row in range(60):
        low, high = 0.0, 10.0
        for _ in range(100):
            # The nearest point for a multiplier: shrink towards x, then clip to the box.
            middle = (low + high) / 2
            d = y[row] - z[row]
            point = (z[row] + d.sign() * (d.abs() - middle).clamp(min=0)).clamp(0, 1)
            fits = (point - z[row]).abs().sum() <= eps[row].double()
            low, high = (low, middle) if fits else (middle, high)
        torch.testing.assert_close(
            ours[row].flatten().double(), point, rtol=0, atol=2e-5, msg=f"row {row}"
        )
    for row in range(60):
        one = slice(row, row + 1)
        theirs = x[one] + delta[one] + L1_projection(x[one], delta[one], float(eps[row]))
        torch.testing.assert_close(ours[one], theirs, rtol=0, atol=1e-4)
