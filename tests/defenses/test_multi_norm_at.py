"""Training in several norms: the balls, the steepest step, the mixtures, and their limits."""

import pytest
import torch
import torch.nn.functional as F

from robustbench_cli.core.domain_weights import settled
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat, onto_l1
from robustbench_cli.defenses import DEFENSES
from robustbench_cli.defenses._step import Passes, Step

OWN = Threat("Linf", 0.03)
RADII = {"Linf": 0.03, "L2": 0.2, "L1": 1.0}


def built(name="multi-norm-at", **params):
    return DEFENSES.build(Spec(name, params))


@pytest.fixture
def step(model, batch):
    noise = Noise(0, torch.arange(6))
    return Step(model=model.eval(), x=batch[0], y=batch[1], threat=OWN, noise=noise, epoch=1000)


def loss_at(step, x):
    return F.cross_entropy(step.model(x), step.y, reduction="none").detach()


@pytest.mark.parametrize(
    ("own", "radii"),
    [
        (Threat("Linf", 0.3), {"Linf": 0.3, "L2": 2, "L1": 10}),
        (Threat("Linf", 0.15), {"Linf": 0.15, "L2": 1, "L1": 5}),
        (Threat("L2", 1.0), {"L2": 1, "Linf": 0.15, "L1": 5}),
    ],
)
def test_radii_keep_their_proportions(own, radii):
    found = {each.norm: each.eps for each in built().threats(own)}
    assert list(found) == list(radii)
    assert found == pytest.approx(radii)


def test_typed_radii_hold_at_their_own_scale():
    maini = built(linf=0.03, l2=0.5, l1=12)
    assert [t.eps for t in maini.threats(Threat("Linf", 0.03))] == pytest.approx([0.03, 0.5, 12])


def test_a_norm_may_be_left_out_but_not_the_threat_s():
    assert [t.norm for t in built(l1=0).threats(OWN)] == ["Linf", "L2"]
    with pytest.raises(UserError, match="give Linf a radius, too"):
        built(linf=0).threats(OWN)


def msd_by_hand(step, steps, share):
    """Algorithm 1 of Maini et al.: each norm's steepest step into its ball, the best of them."""
    x, x_adv = step.x, step.x.clone()
    for _ in range(steps):
        leaf = x_adv.clone().requires_grad_()
        (g,) = torch.autograd.grad(F.cross_entropy(step.model(leaf), step.y, reduction="sum"), leaf)
        signed = (x_adv + share * RADII["Linf"] * g.sign() - x).clamp(-0.03, 0.03)
        straight = x_adv + share * RADII["L2"] * g / g.flatten(1).norm(dim=1).view(-1, 1, 1, 1) - x
        length = straight.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        straight = straight * (RADII["L2"] / length).clamp(max=1)
        largest = g.flatten(1).abs().topk(3).indices  # 5 % of 64 pixels
        few = torch.zeros_like(g).flatten(1).scatter(1, largest, 1 / 3).view_as(g) * g.sign()
        sparse = onto_l1(x_adv + share * RADII["L1"] * few, x, RADII["L1"])
        tried = [(x + signed).clamp(0, 1), (x + straight).clamp(0, 1), sparse]
        best = torch.stack([loss_at(step, each) for each in tried]).argmax(0)
        x_adv = torch.stack([tried[k][i] for i, k in enumerate(best.tolist())])
    return x_adv


def test_msd_takes_the_best_of_the_steepest_steps(step):
    x_adv = built(steps=7).crafted(step)["adv"]
    torch.testing.assert_close(x_adv, msd_by_hand(step, 7, 0.25), rtol=0, atol=1e-8)


def test_max_is_the_worst_of_the_walks_that_avg_has_the_mean_of(step):
    each = built(mode="avg").crafted(step)
    assert list(each) == ["adv", "L2", "L1"]
    for (_, x_adv), (norm, eps) in zip(each.items(), RADII.items(), strict=True):
        assert Threat(norm, eps).inside(x_adv, step.x).all()
        torch.testing.assert_close(Threat(norm, eps).project(x_adv, step.x), x_adv)
    losses = torch.stack([loss_at(step, x_adv) for x_adv in each.values()], 1)
    worst = built(mode="max").crafted(step)
    torch.testing.assert_close(loss_at(step, worst["adv"]), losses.amax(1))
    passes = Passes(step.model, {"clean": step.x, **each})
    torch.testing.assert_close(built(mode="avg").loss(step, passes), losses.mean(1))
    leaning = built(mode="min-max", gamma=0.5).loss(step, passes)
    torch.testing.assert_close(leaning, (settled(losses, 0.5) * losses).sum(1))
    assert (leaning > losses.mean(1)).all()


@pytest.mark.parametrize(("gamma", "limit"), [(1e9, "mean"), (1e-9, "amax")])
def test_weights_lead_from_the_mean_to_the_worst(step, gamma, limit):
    objective = built(mode="min-max", gamma=gamma)
    passes = Passes(step.model, {"clean": step.x, **objective.crafted(step)})
    found = objective.loss(step, passes)
    losses = torch.stack([loss_at(step, passes.inputs[name]) for name in ("adv", "L2", "L1")], 1)
    expected = getattr(losses, limit)(1)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("mode", ["msd", "max", "avg", "min-max"])
def test_one_norm_is_pgd_at(step, mode):
    alone = built(mode=mode, l2=0, l1=0).crafted(step)
    plain = built("pgd-at", start="clean", attack_mode="eval").crafted(step)
    assert list(alone) == ["adv"]
    torch.testing.assert_close(alone["adv"], plain["adv"], rtol=0, atol=0)
