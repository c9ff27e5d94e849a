"""SPSA and NES: estimates that point uphill, budgets that hold, and masks that do not help."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from robustbench_cli.attacks import Observation, Task
from robustbench_cli.attacks.spsa import estimate_gradient
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.losses import margin
from robustbench_cli.core.threat import Threat
from robustbench_cli.evaluation.tensors import Tensors

LINF = Threat("Linf", 0.2)
MODEST = ["spsa:steps=15,pairs=12,lr=0.05", "nes:queries=400,pairs=10"]
modest = pytest.mark.parametrize("text", MODEST)


def task_of(x, y, clean=None, threat=LINF):
    clean = torch.zeros(len(y), 4) if clean is None else clean
    noise = Noise(0, torch.arange(len(y)))
    return Task(
        x=x, y=y, clean=clean, threat=threat, noise=noise, restart_or_target=0, data=Tensors(x, y)
    )


def look_of(state, task, model, taken):
    """What an attack that sees logits only is shown."""
    none = state["x"].new_full((len(task.y),), torch.nan)
    with torch.no_grad():
        probes = model(state["probes"].flatten(0, 1)).unflatten(0, state["probes"].shape[:2])
        logits = model(state["x"])
        return Observation(logits, margin(logits, task.y), none, probes, none, taken)


@pytest.mark.parametrize("text", ["spsa:pairs=512,c=0.001", "nes:pairs=512,queries=5000"])
def test_the_estimate_points_along_the_gradient(text, model, batch, build):
    (x, y), attack = batch, build(text)
    model.eval()
    task = task_of(x, y)
    state = attack.begin(task)
    radius = getattr(attack, "c", None) or attack.sigma
    found = estimate_gradient(state["probes"], look_of(state, task, model, y * 0).probes, y, radius)
    leaf = state["x"].clone().requires_grad_()
    margin(model(leaf), y).sum().backward()
    cosine = nn.functional.cosine_similarity(found.flatten(1), leaf.grad.flatten(1))
    # With n pairs in d = 64 dimensions sqrt(n / (n + d)) is to be expected, here 0.94.
    assert (cosine > 0.9).all()
    size = found.flatten(1).norm(dim=1) / leaf.grad.flatten(1).norm(dim=1)
    assert ((size > 0.9) & (size < 1.25)).all()


@modest
def test_probes_are_pairs_of_their_own_for_every_example_and_step(text, model, batch, build):
    (x, y), attack = batch, build(text)
    x[1] = x[0]
    task = task_of(x, y)
    state = attack.begin(task)
    assert state["probes"].shape == (6, attack.probes, 1, 8, 8)
    seen = []
    for step in range(2):
        ahead, behind = (state["probes"] - state["x"][:, None]).chunk(2, 1)
        torch.testing.assert_close(ahead, -behind, rtol=0, atol=1e-12)
        seen += [ahead[0], ahead[1]]
        state = attack.move(state, look_of(state, task, model.eval(), y * 0 + step), task)
    for i, one in enumerate(seen):
        assert not any(torch.allclose(one, other) for other in seen[:i])


def test_spsa_takes_adam_s_steps(model, batch, build):
    x, y = batch
    attack, task = build("spsa:pairs=4,lr=0.003"), task_of(x, y, threat=Threat("Linf", 1.0))
    state, model = attack.begin(task), model.eval()
    weight = state["x"].clone()
    adam = torch.optim.Adam([weight.requires_grad_()], lr=0.003)
    for taken in range(4):
        look = look_of(state, task, model, y * 0 + taken)
        weight.grad = -estimate_gradient(state["probes"], look.probes, y, attack.c)
        adam.step()
        with torch.no_grad():
            weight.clamp_(0, 1)
        state = attack.move(state, look, task)
        torch.testing.assert_close(state["x"], weight.detach(), rtol=0, atol=1e-6)


def test_nes_halves_the_step_on_a_plateau_row_by_row(build):
    attack = build("nes:pairs=2,queries=1000,step=0.2,least=0.06")
    x, y = torch.full((2, 1, 2, 2), 0.5), torch.zeros(2, dtype=torch.long)
    task = task_of(x, y)
    state, rates = attack.begin(task), []
    none = torch.full((2,), torch.nan)
    for taken in range(15):
        gap = torch.tensor([-1.0 - taken, -1.0 + taken])  # one row falls, one rises
        logits = torch.stack([-gap, torch.zeros(2)], 1)
        probes = torch.randn(2, 4, 2)
        state = attack.move(state, Observation(logits, gap, none, probes, none, y + taken), task)
        rates.append(state["rate"])
    falling, rising = torch.stack(rates).T
    assert rising.eq(rising[0]).all()
    expected = [0.2] * 4 + [0.1] * 5 + [0.06] * 6
    torch.testing.assert_close(falling, torch.tensor(expected))


def test_nes_stays_within_its_budget(digits_model, run):
    net, x, y = digits_model
    found = run(net, x, y, "nes:queries=200,pairs=10", Threat("Linf", 0.001))
    held = ~found.broken
    assert held.sum() > 15
    # Nine looks of 21 images; the clean image and the verdict are not the attack's.
    assert (found.forwards[held] - 2 == 189).all()
    assert not found.backwards.any()


@modest
def test_black_box_attacks_break_most_of_what_pgd_breaks(text, digits_model, run):
    net, x, y = digits_model
    pgd, found = run(net, x, y, "pgd20"), run(net, x, y, text)
    assert pgd.broken.sum() >= 20
    assert found.broken.sum() >= 0.8 * pgd.broken.sum()
    assert not found.backwards.any()
    # At a smaller radius they must not claim more than there is.
    small = Threat("Linf", 0.02)
    assert run(net, x, y, text, small).broken.sum() <= run(net, x, y, "pgd20", small).broken.sum()


class Stairs(nn.Module):
    """A net behind 255 grey levels: its gradient is zero everywhere."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net((255 * x).round() / 255)


class Saturated(nn.Module):
    """Probabilities so sure of themselves that cross-entropy has no gradient left."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return 1e4 * self.net(x)


@pytest.mark.parametrize("mask", [Stairs, Saturated])
def test_masked_gradients_stop_pgd_but_not_spsa(mask, digits_model, run):
    net, x, y = digits_model
    masked = mask(net)
    wrong = int((masked(x).argmax(1) != y).sum())
    blind = run(masked, x, y, "pgd:steps=20,start=clean").broken.sum()
    assert blind <= wrong + 6
    assert run(masked, x, y, MODEST[0]).broken.sum() >= blind + 10


@modest
def test_verdicts_depend_on_the_example_alone(text, digits_model, run):
    net, x, y = digits_model
    net, x, y, threat = copy.deepcopy(net).double(), x[:8].double(), y[:8], Threat("Linf", 0.15)
    whole = run(net, x, y, text, threat)
    assert 0 < whole.broken.sum() < 8
    few = run(net, x, y, text, threat, slots=99)  # three at a time, or four
    rows = torch.tensor([7, 3, 1, 4])
    alone = run(net, x[rows], y[rows], text, threat, ids=rows, slots=3)
    assert torch.equal(few.broken, whole.broken)
    assert torch.equal(few.step, whole.step)
    assert torch.equal(alone.broken, whole.broken[rows])
    torch.testing.assert_close(alone.x, whole.x[rows], rtol=0, atol=1e-6)


@modest
@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_images_stay_in_the_ball(text, norm, digits_model, run):
    net, x, y = digits_model
    threat = Threat(norm, {"Linf": 0.1, "L2": 0.8}[norm])
    found = run(net, x, y, text, threat)
    assert threat.inside(found.x, x).all()
    assert (net(found.x).argmax(1) != y).equal(found.broken)


def test_spsa_begins_where_it_is_told_and_each_restart_draws_anew(batch, build):
    x, y = batch
    task = task_of(x, y)
    begun = build("spsa:pairs=2").begin(task)["x"]
    assert not torch.equal(begun, x)
    assert task.threat.inside(begun, x).all()
    attack = build("spsa:pairs=2,restarts=2,start=clean")
    first, second = (
        attack.begin(replace(task, noise=task.noise.fork(f"restart {i}"))) for i in (0, 1)
    )
    assert torch.equal(first["x"], x)
    assert not torch.equal(first["probes"], second["probes"])


def test_names_and_limits(build):
    assert build("spsa").probes == 256
    assert (build("spsa").steps, build("spsa").c, build("spsa").lr) == (100, 0.01, 0.01)
    assert build("spsa40").steps == 40
    assert build("spsa:restarts=3").restarts_or_targets(10) == 3
    assert build("nes5000").queries == 5000
    with pytest.raises(UserError, match="momentum"):
        build("nes:momentum=1")
