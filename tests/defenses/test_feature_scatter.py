"""Feature scattering: the objective of the attack, the pairing of examples, the smoothed labels."""

import copy
from contextlib import ExitStack
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.losses import cross_entropy
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.defenses import DEFENSES, Recipe, _transport, parse
from robustbench_cli.defenses._step import Step

MATCHINGS = ["sinkhorn", "legacy", "ipot", "uniform", "identity"]


def step_of(model, batch, eps=0.1):
    x, y = batch
    noise = Noise(0, torch.arange(len(x)))
    return Step(model=model, x=x, y=y, threat=Threat("Linf", eps), noise=noise)


def scatter(**params):
    return DEFENSES.build(Spec("feature-scatter", params))


def trained(text, model, step):
    net = copy.deepcopy(model).train()
    with ExitStack() as release:
        loss = Recipe.build(parse(text)).backward(replace(step, model=net), release).loss
    return loss, [p.grad for p in net.parameters()]


def cosines(a, b):
    return torch.stack([torch.stack([(p @ q) / (p.norm() * q.norm()) for q in b]) for p in a])


def official_plan(cost, regularizer):
    """Return the official solver's plan, in the equivalent form that divides by sums."""
    n = len(cost)
    kernel = torch.exp(-cost / regularizer)
    a, b = torch.ones(n).double(), torch.ones(n).double()
    for _ in range(100):
        scaled = a / (n * ((a[:, None] * kernel * b).sum(1) + 1e-6))
        moved, a = regularizer * (scaled / a).log().abs().sum(), scaled
        b = b / (n * ((a[:, None] * kernel * b).sum(0) + 1e-6))
        if moved < 0.1:
            break
    return a[:, None] * kernel * b


@pytest.mark.parametrize("least", [0.0, 0.12])
def test_legacy_is_the_official_solver_constants_and_all(least):
    """Far costs make the 1e-6 count; where it stops decides the rest."""
    cost = least + torch.rand(20, 20).double()
    ours = _transport.legacy_sinkhorn(cost, 0.01)
    torch.testing.assert_close(ours, official_plan(cost, 0.01))


def by_hand(model, x, y, eps, start, matching):
    """Return the gradient of every weight for one batch, written out in plain torch."""
    twin = copy.deepcopy(model).eval()
    clean = twin(x).detach()
    x_adv = start.clone().requires_grad_()
    cost = 1 - cosines(clean, twin(x_adv))
    n = len(x)
    plan = {
        "uniform": lambda: torch.ones(n, n).double() / n**2,
        "identity": lambda: torch.eye(n).double() / n,
        "legacy": lambda: official_plan(cost, 0.01),
    }[matching]()
    (grad,) = torch.autograd.grad((plan * cost).sum(), x_adv)
    moved = x_adv.detach() + eps * grad.sign()
    moved = torch.min(torch.max(moved, x - eps), x + eps).clamp(0, 1)
    twin.train()
    target = torch.full((n, 4), 0.5 / 3).double()
    target[range(n), y] = 0.5
    loss = -(target * F.log_softmax(twin(moved), 1)).sum(1).mean()
    loss.backward()
    return loss.detach(), [p.grad for p in twin.parameters()]


@pytest.mark.parametrize("matching", ["uniform", "identity", "legacy"])
def test_loss_and_every_weight_gradient(matching, model, batch):
    step = step_of(model, batch)
    start = step.threat.random_start(step.x, step.noise.fork("start"))
    expected = by_hand(model, *batch, 0.1, start, matching)
    ours = trained(f"feature-scatter:matching={matching}", model, step)
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("matching", MATCHINGS)
def test_the_batch_goes_further_from_the_clean_one(matching, model, batch):
    objective, step = scatter(matching=matching), step_of(model.eval(), batch)
    clean = model(step.x).detach()
    start = objective.climb.begin(step.x, step.threat, step.noise)
    moved = objective.perturb(step)
    with torch.no_grad():
        before, after = (objective.distance(model(x), clean).sum() for x in (start, moved))
    assert after > before


@pytest.mark.parametrize("matching", MATCHINGS)
def test_permuting_the_batch_permutes_the_result(matching, model, batch):
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    step = step_of(model.eval(), batch)
    shuffled = replace(step, x=step.x[order], y=step.y[order], noise=step.noise.only(order))
    objective = scatter(matching=matching)
    torch.testing.assert_close(objective.perturb(shuffled), objective.perturb(step)[order])


def test_examples_depend_on_their_batch_only_through_the_matching(model, batch):
    step = step_of(model.eval(), batch)
    half = replace(step, x=step.x[:3], y=step.y[:3], noise=step.noise.only(slice(3)))
    for matching, same in (("identity", True), ("sinkhorn", False)):
        objective = scatter(matching=matching)
        assert torch.equal(objective.perturb(half), objective.perturb(step)[:3]) is same


def test_identity_is_the_mean_cosine_distance_and_uniform_that_of_all_pairs(model, batch):
    clean, moved = model(batch[0]).detach(), model(batch[0].flip(0)).detach()
    pairs = 1 - cosines(clean, moved)
    identity = scatter(matching="identity").distance(moved, clean).sum()
    torch.testing.assert_close(identity, pairs.diagonal().mean())
    torch.testing.assert_close(
        scatter(matching="uniform").distance(moved, clean).sum(), pairs.mean()
    )


def test_with_a_tiny_eps_it_is_standard_training_on_smoothed_labels(model, batch):
    step = step_of(model, batch, eps=1e-300)
    ours = trained("feature-scatter", model, step)
    standard = trained("standard+ls:amount=0.5,over=others", model, step)
    torch.testing.assert_close(ours, standard)


def test_random_is_the_start_and_supervised_climbs_the_label_s_loss(model, batch):
    step = step_of(model.eval(), batch)
    start = step.threat.random_start(step.x, step.noise.fork("start"))
    assert torch.equal(scatter(perturbation="random").perturb(step), start)
    leaf = start.clone().requires_grad_()
    (grad,) = torch.autograd.grad(cross_entropy(model(leaf), step.y).sum(), leaf)
    moved = start + 0.1 * grad.sign()
    expected = torch.min(torch.max(moved, step.x - 0.1), step.x + 0.1).clamp(0, 1)
    torch.testing.assert_close(scatter(perturbation="supervised").perturb(step), expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("feature-scatter:start=clean", "no slope"),
        ("feature-scatter+ls", "smooths labels itself"),
        ("feature-scatter:perturbation=random,start=unclipped", r"leaves outside \[0, 1\]"),
    ],
)
def test_combinations_that_make_no_sense_are_refused(text, message):
    with pytest.raises(UserError, match=message):
        Recipe.build(parse(text)).check(10)


def test_other_parts_keep_their_meaning(model, batch):
    """Scales of the logits, as under he, do not change the distance; a start may be clean."""
    objective = scatter()
    clean, moved = model(batch[0]).detach(), model(batch[0].flip(0)).detach()
    torch.testing.assert_close(
        objective.distance(15 * moved, 15 * clean), objective.distance(moved, clean)
    )
    Recipe.build(parse("feature-scatter:perturbation=supervised,start=clean+he")).check(10)
