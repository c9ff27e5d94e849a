"""PGD from an output-diversified start (Tashiro et al., 2020)."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from robustbench_cli.attacks import Observation, Output, Task
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.losses import margin
from robustbench_cli.core.threat import Threat
from robustbench_cli.evaluation.tensors import Tensors

IDS = torch.arange(5)


@pytest.fixture
def net():
    torch.manual_seed(3)
    layers = torch.nn.Flatten(), torch.nn.Linear(64, 16), torch.nn.Tanh(), torch.nn.Linear(16, 4)
    return torch.nn.Sequential(*layers).double().requires_grad_(False)


def task_of(net, norm="Linf", ids=IDS, restart=0):
    """Images that belong to their ids, so that an example is the same one in any batch."""
    noise = Noise(0, ids, f"pgd-odi/{restart}")
    x = Noise(7, ids).uniform(torch.empty(len(ids), 1, 8, 8)).double()
    y = net(x).argmax(1)
    threat = Threat(norm, {"Linf": 0.1, "L2": 0.5, "L1": 2.0}[norm])
    return Task(
        x=x,
        y=y,
        clean=net(x),
        threat=threat,
        noise=noise,
        restart_or_target=restart,
        data=Tensors(x, y),
    )


def looks(attack, net, task):
    """What the attack asks to see, all examples at the same step, until they are all done."""
    state, step_index, shown = attack.begin(task), torch.zeros_like(task.y), []
    while True:
        leaf = state["x"].clone().requires_grad_()
        logits = net(leaf)
        loss = attack.loss(Output(logits, None), state, task, step_index)
        (grad,) = torch.autograd.grad(loss.sum(), leaf)
        shown.append(leaf.detach())
        if attack.over(state, step_index).all():
            return torch.stack(shown)
        none = logits.new_empty(len(task.y), 0)
        seen = Observation(logits.detach(), loss.detach(), grad, none, none, step_index)
        state, step_index = attack.move(state, seen, task), step_index + 1


def steepest(grad, norm):
    if norm == "Linf":
        return grad.sign()
    return grad / grad.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


def projected(z, x, threat):
    if threat.norm == "Linf":
        return torch.minimum(torch.maximum(z, x - threat.eps), x + threat.eps).clamp(0, 1)
    size = (z - x).flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    return (x + (z - x) * (threat.eps / size).clamp(max=1)).clamp(0, 1)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("opening", [1, 2])
def test_it_is_the_loop_written_out(norm, opening, net, build):
    """The authors' loop: first w . f(x) with steps of eps, then the loss with its own steps."""
    attack = build(f"pgd-odi3:step=0.3,climbs=margin,opening={opening}")
    task = task_of(net, norm)
    state = attack.begin(task)
    x, w, expected = state["x"], state["outputs"], []
    for i in range(opening + 3):
        expected.append(x)
        leaf = x.clone().requires_grad_()
        logits = net(leaf)
        loss = (w * logits).sum() if i < opening else margin(logits, task.y).sum()
        (grad,) = torch.autograd.grad(loss, leaf)
        size = task.threat.eps * (1 if i < opening else 0.3)
        x = projected(leaf.detach() + size * steepest(grad, norm), task.x, task.threat)
    expected.append(x)
    torch.testing.assert_close(
        looks(attack, net, task), torch.stack(expected), rtol=0, atol=1e-9 if norm == "L2" else 0
    )


def test_the_opening_reaches_a_corner_of_the_ball_along_w(build):
    """Of a linear model, whose w . f has the same steepest corner everywhere."""
    linear = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 4)).double()
    task = task_of(linear.requires_grad_(False))
    attack = build("pgd-odi1")
    along = attack.begin(task)["outputs"] @ linear[1].weight
    corner = projected(task.x + 0.1 * along.sign().view_as(task.x), task.x, task.threat)
    # From anywhere in the ball it takes two steps of a radius, of which the first may do.
    torch.testing.assert_close(looks(attack, linear, task)[2], corner, rtol=0, atol=1e-9)


def test_w_is_uniform_between_minus_one_and_one(net, build):
    outputs = build("pgd-odi").begin(task_of(net, ids=torch.arange(4000)))["outputs"]
    assert outputs.shape == (4000, 4)
    assert -1 <= outputs.min() < -0.99
    assert 0.99 < outputs.max() <= 1
    assert outputs.mean(0).abs().max() < 0.05
    assert (outputs.square().mean(0) - 1 / 3).abs().max() < 0.02
    assert (torch.corrcoef(outputs.T) - torch.eye(4).double()).abs().max() < 0.06


def test_randomness_belongs_to_the_seed_the_example_and_the_restart(net, build):
    attack = build("pgd-odi4:restarts=2")
    assert attack.restarts_or_targets(4) == 2
    task = task_of(net)
    whole = looks(attack, net, task)
    rows = torch.tensor([3, 0])
    alone = looks(attack, net, task_of(net, ids=IDS[rows]))
    torch.testing.assert_close(alone, whole[:, rows], rtol=0, atol=1e-12)
    outputs = attack.begin(task)["outputs"]
    assert len(outputs.unique()) == outputs.numel()
    others = task_of(net, restart=1), replace(task, noise=replace(task.noise, seed=1))
    for other in others:
        assert (attack.begin(other)["outputs"] - outputs).abs().amax(1).min() > 0.05


def test_rows_at_different_steps_do_as_they_would_together(net, build):
    """The loop refills rows: one may open while its neighbour is past the opening."""
    attack, task = build("pgd-odi4"), task_of(net)
    shown = looks(attack, net, task)
    at = torch.tensor([0, 1, 2, 3, 4])
    state = {**attack.begin(task), "x": shown[at, IDS]}
    leaf = state["x"].clone().requires_grad_()
    logits = net(leaf)
    loss = attack.loss(Output(logits, None), state, task, at)
    (grad,) = torch.autograd.grad(loss.sum(), leaf)
    none = logits.new_empty(5, 0)
    moved = attack.move(state, Observation(logits, loss, grad, none, none, at), task)
    torch.testing.assert_close(moved["x"], shown[at + 1, IDS], rtol=0, atol=0)


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
@pytest.mark.parametrize("start", ["clean", "uniform"])
def test_without_opening_steps_it_is_pgd(norm, start, net, build):
    task = task_of(net, norm)
    alike = [build(f"{name}:steps=6,start={start}") for name in ("pgd", "pgd-odi")]
    pgd, odi = (looks(each, net, task) for each in (alike[0], replace(alike[1], opening=0)))
    assert torch.equal(pgd, odi)
    assert len(looks(alike[1], net, task)) == len(pgd) + 2


def test_the_verdicts_without_opening_steps_are_pgd_s(net, run):
    """Through the real loop; from the clean image, as each name has random numbers of its own."""
    task = task_of(net, ids=torch.arange(64))
    options = "step=0.3,start=clean"
    pgd = run(net, task.x, task.y, f"pgd4:{options}", Threat("Linf", 0.08))
    odi = run(net, task.x, task.y, f"pgd-odi4:{options},opening=0", Threat("Linf", 0.08))
    assert 0 < pgd.broken.sum() < 64
    for name in ("x", "broken", "step", "norm", "forwards", "backwards"):
        assert torch.equal(getattr(pgd, name), getattr(odi, name)), name


def test_opening_steps_count_as_looks_and_cost_a_pass_each(run):
    def never(x):
        score = x.flatten(1).mean(1)
        return torch.stack([score + 9, -score], 1)

    class Never(torch.nn.Module):
        def forward(self, x):
            return never(x)

    x, y = torch.full((3, 1, 4, 4), 0.5), torch.zeros(3, dtype=torch.long)
    pgd, odi = (run(Never(), x, y, name, Threat("Linf", 0.1)) for name in ("pgd5", "odi-pgd5"))
    assert torch.equal(odi.forwards, pgd.forwards + 2)
    assert torch.equal(odi.backwards, pgd.backwards + 2)


def test_the_last_iterate_is_the_one_after_the_opening_and_the_steps(net, build):
    attack, at = build("pgd-odi5:last_iterate=true"), torch.arange(9)
    assert torch.equal(attack.counts({}, at), at >= 7)
    assert torch.equal(attack.over({}, at), at >= 7)
    assert build("pgd-odi5").counts({}, at).all()


def test_starts_are_spread_over_more_classes_than_random_ones(net, build):
    """What it is for: after the opening, predictions differ more than after a uniform start."""
    copies = torch.arange(200)
    task = task_of(net, ids=copies)
    x = task.x[:1].expand_as(task.x).contiguous()
    task = replace(task, x=x, y=net(x).argmax(1), clean=net(x), threat=Threat("Linf", 0.15))
    random, _, opened, *_ = looks(build("pgd-odi1"), net, task)
    spread = [F.softmax(net(z), 1).std(0).sum() for z in (random, opened)]
    assert spread[1] > 3 * spread[0]


def test_a_sweep_over_steps_runs_each_point(build):
    assert not build("pgd-odi20").nested
