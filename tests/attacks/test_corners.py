"""Random corners: where they lie, whose they are, and that the first success ends the search."""

import pytest
import torch
from torch import nn

from robustbench_cli.attacks import Observation, Task
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.threat import Threat
from robustbench_cli.evaluation.tensors import Tensors

RADII = {"Linf": 0.1, "L2": 0.5, "L1": 2.0}


def task_of(threat, ids=None):
    ids = torch.arange(6) if ids is None else ids
    x = 0.3 + 0.4 * torch.rand(6, 3, 8, 8)[ids]  # so far from 0 and 1 that nothing is clipped
    y = torch.zeros_like(ids)
    clean = torch.zeros(len(ids), 4)
    return Task(
        x=x, y=y, clean=clean, threat=threat, noise=Noise(0, ids), restart_or_target=0,
        data=Tensors(x, y),
    )  # fmt: skip


def corners_of(attack, task, count):
    """The images that the attack tries."""
    state, found = attack.begin(task), []
    none = task.x.new_full((len(task.y),), torch.nan)
    for number in range(count):
        found.append(state["x"])
        observation = Observation(task.clean, none, none, none, none, task.y * 0 + number)
        state = attack.move(state, observation, task)
    return torch.stack(found)


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_every_point_lies_on_the_border_of_the_ball(norm, build):
    threat = Threat(norm, RADII[norm])
    task = task_of(threat)
    for x in corners_of(build("corners"), task, 4):
        reached = threat.distance(x, task.x)
        torch.testing.assert_close(reached, torch.full_like(reached, threat.eps))
        if norm == "Linf":
            torch.testing.assert_close((x - task.x).abs(), torch.full_like(x, threat.eps))
        if norm == "L1":
            assert ((x != task.x).flatten(1).sum(1) <= 0.06 * x[0].numel()).all()


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_corners_are_spread_over_all_directions(norm, build):
    task = task_of(Threat(norm, RADII[norm]))
    moved = corners_of(build("corners"), task, 200) - task.x
    # The mean of n independent directions is 1/sqrt(n) of one of them.
    assert moved.mean(0).norm() < 0.1 * moved[0].norm()
    assert (moved != 0).any((0, 1)).all()


def test_a_corner_belongs_to_the_example_and_its_number(build):
    threat = Threat("Linf", 0.1)
    torch.manual_seed(1)
    together = corners_of(build("corners"), task_of(threat), 3)
    rows = torch.tensor([4, 1])
    torch.manual_seed(1)
    alone = corners_of(build("corners"), task_of(threat, rows), 3)
    torch.testing.assert_close(alone, together[:, rows], rtol=0, atol=0)
    moved = (together - together.mean((0, 1))).sign().flatten(0, 1)
    assert len(moved.unique(dim=0)) == len(moved)


class HalfOfTheCorners(nn.Module):
    """Wrong wherever the first pixel rose; its gradient is zero everywhere."""

    def forward(self, x):
        wrong = (x[:, 0, 0, 0] > 0.55).to(x) + 0 * x.sum((1, 2, 3))
        return torch.stack([0.5 - wrong, 0 * wrong], 1)


def test_it_breaks_what_gradients_do_not_see_and_stops_there(run):
    x, y = torch.full((40, 1, 4, 4), 0.5), torch.zeros(40, dtype=torch.long)
    threat = Threat("Linf", 0.1)
    bim = run(HalfOfTheCorners(), x, y, "bim20:start=clean", threat)
    assert not bim.broken.any()
    found = run(HalfOfTheCorners(), x, y, "corners", threat)
    assert found.broken.all()
    assert (found.x[:, 0, 0, 0] > 0.55).all()
    # The clean logits, a pass per corner tried, a confirmation and the verdict.
    assert torch.equal(found.forwards, 3 + found.step.long() + 1)
    assert not found.backwards.any()
    assert 0.3 < (found.step == 0).float().mean() < 0.7


def test_the_number_in_the_name_is_the_number_of_corners(run, build):
    class Never(nn.Module):
        def forward(self, x):
            score = x.flatten(1).mean(1)
            return torch.stack([score + 9, -score], 1)

    assert build("corners").queries == build("random-corners").queries == 100
    x, y = torch.full((3, 1, 4, 4), 0.5), torch.zeros(3, dtype=torch.long)
    found = run(Never(), x, y, "corners7", Threat("Linf", 0.1))
    assert not found.broken.any()
    assert torch.equal(found.forwards, torch.full_like(found.forwards, 7 + 2))
