"""What must hold whatever the net, the threat, the attack and the numbers."""

import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from robustbench_cli.attacks import ATTACKS
from robustbench_cli.commands.sweep import inherit
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat, onto_l1
from robustbench_cli.evaluation.batch_attack import attack_batch
from robustbench_cli.evaluation.eval_context import EvalContext
from robustbench_cli.evaluation.search_model import SearchModel
from robustbench_cli.evaluation.stages import AttackVerdicts, run_stages
from robustbench_cli.evaluation.tensors import Tensors
from robustbench_cli.evaluation.verifier import Verifier

QUICK = settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.differing_executors],
)
CLASSES, COUNT = 4, 7
LARGEST = {"Linf": 0.5, "L2": 2.0, "L1": 8.0}

norms = st.sampled_from(list(LARGEST))
seeds = st.integers(0, 10_000)
shares = st.floats(0.001, 1.0)
attacks = st.sampled_from(
    [
        *("pgd:steps=4,step=0.4", "pgd:steps=3,start=gauss,restarts=2", "mim4", "cw5", "fgsm-rs"),
        *("apgd-ce-6", "apgd-dlr-5", "apgd-t:steps=4,targets=2", "mt:steps=2", "square-12"),
        *("fab-t:steps=3,targets=2,within=true", "fab:steps=3,within=true", "spsa:steps=2,pairs=2"),
    ]
)


def case(seed, corners=True):
    """A small net, images of which many pixels are saturated, and the net's own labels."""
    rng = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Flatten(), nn.Linear(50, 8), nn.ReLU(), nn.Linear(8, CLASSES))
    net = net.double().requires_grad_(False)
    x = torch.rand(COUNT, 2, 5, 5, generator=rng).double()
    x = torch.where(torch.rand(x.shape, generator=rng) < 0.4, x.round(), x) if corners else x
    return net, x, net(x).argmax(1)


def build(text):
    return ATTACKS.build(Spec.parse(text))


def run(net, x, y, text, threat, ids=None, slots=512):
    noise = Noise(1, torch.arange(len(y)) if ids is None else ids)
    return attack_batch(net, x, y, build(text), threat, noise, slots=slots)


@QUICK
@given(attacks, norms, shares, seeds)
def test_images_are_in_the_ball_and_the_box_and_are_what_they_claim(text, norm, share, seed):
    net, x, y = case(seed)
    threat = Threat(norm, share * LARGEST[norm])
    found = run(net, x, y, text, threat)
    assert threat.inside(found.x, x).all()
    assert torch.equal(net(found.x).argmax(1) != y, found.broken)
    assert ((found.step >= 0) == found.broken).all()
    assert ((found.by >= 0) == found.broken).all()
    assert (found.forwards > 0).all()


@QUICK
@given(attacks, norms, shares, seeds, st.integers(1, 9))
def test_neither_the_order_nor_the_slots_matter(text, norm, share, seed, slots):
    net, x, y = case(seed)
    threat, order = Threat(norm, share * LARGEST[norm]), torch.randperm(COUNT)
    whole = run(net, x, y, text, threat)
    other = run(net, x[order], y[order], text, threat, ids=order, slots=slots)
    for key in ("broken", "step", "by", "forwards", "backwards"):
        assert torch.equal(getattr(other, key), getattr(whole, key)[order]), key
    torch.testing.assert_close(other.x, whole.x[order], rtol=0, atol=1e-7)


@QUICK
@given(st.sampled_from(["pgd", "cw", "bim", "mt"]), norms, shares, seeds, st.integers(1, 6))
def test_more_steps_break_more(name, norm, share, seed, steps):
    net, x, y = case(seed)
    threat = Threat(norm, share * LARGEST[norm])
    few, many = (run(net, x, y, f"{name}:steps={n},step=0.5", threat) for n in (steps, steps + 3))
    assert (few.broken <= many.broken).all()
    if build(name).nested:
        cut = (many.step >= 0) & (many.step <= steps)
        assert torch.equal(few.broken, cut)
        assert torch.equal(few.step[cut], many.step[cut])


@QUICK
@given(attacks, norms, seeds, st.lists(shares, min_size=2, max_size=3, unique=True))
def test_a_larger_radius_breaks_whatever_a_smaller_one_did(text, norm, seed, radii):
    net, x, y = case(seed)
    itself, columns = SearchModel(model=net), []
    for share in sorted(radii):
        threat = Threat(norm, share * LARGEST[norm])
        context = EvalContext(
            data=Tensors(x, y),
            threat=threat,
            verifier=Verifier(net),
            search_model=itself,
            noise=Noise(0, torch.arange(COUNT)),
        )
        column = AttackVerdicts.empty(COUNT)
        if columns:
            inherit(column, columns[-1])
            known = column.broken.copy()
        stages = build(text).stages(threat, CLASSES)
        for _ in run_stages(stages, column, np.ones(COUNT, bool), context, itself):
            pass
        if columns:
            assert not (columns[-1].broken & ~column.broken).any()
            assert not column.arrays["forwards"][known].any()  # it cost nothing to know
            assert (column.arrays["norm"][known] <= columns[-1].arrays["norm"][known]).all()
        columns.append(column)


@QUICK
@given(norms, shares, seeds)
def test_the_projection_is_idempotent_and_leaves_what_is_allowed(norm, share, seed):
    _, x, _ = case(seed)
    x, threat = x.float(), Threat(norm, share * LARGEST[norm])
    far = x + torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
    once = threat.project(far, x)
    assert threat.inside(once, x).all()
    torch.testing.assert_close(threat.project(once, x), once, rtol=0, atol=2e-6)
    assert torch.equal(threat.project(x, x), x)
    assert torch.equal(threat.stored(once, x), once)


@QUICK
@given(shares, seeds)
def test_no_feasible_point_is_nearer_than_the_l1_projection(share, seed):
    _, x, _ = case(seed)
    rng, eps = torch.Generator().manual_seed(seed), share * 8
    far = x + torch.randn(x.shape, generator=rng, dtype=x.dtype)
    mine = (onto_l1(far, x, eps) - far).flatten(1).norm(dim=1)
    for _ in range(20):
        other = (x + torch.randn(x.shape, generator=rng, dtype=x.dtype)).clamp(0, 1)
        size = (other - x).abs().flatten(1).sum(1).clamp_min(eps)
        other = x + (other - x) * (eps / size)[:, None, None, None]
        assert (mine <= (other - far).flatten(1).norm(dim=1) + 1e-6).all()


@QUICK
@given(norms, shares, seeds)
def test_starts_are_inside_and_an_example_s_own(norm, share, seed):
    _, x, _ = case(seed)
    x, threat = x.float(), Threat(norm, share * LARGEST[norm])
    noise = Noise(seed, torch.arange(COUNT))
    start = threat.random_start(x, noise)
    assert threat.inside(start, x).all()
    rows = torch.tensor([5, 0])
    torch.testing.assert_close(
        threat.random_start(x[rows], noise.only(rows)), start[rows], rtol=0, atol=1e-6
    )
