"""The points of a sweep: a shorter run is read off a longer one only where that is exact."""

from dataclasses import dataclass, fields
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from robustbench_cli.attacks import ATTACKS, Iterated
from robustbench_cli.attacks.pgd import PGD
from robustbench_cli.commands.eval_config import resolve_eval_config
from robustbench_cli.commands.sweep import cut, points
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.gradient_ascent import projected_step
from robustbench_cli.core.losses import cross_entropy
from robustbench_cli.core.registry import Spec
from robustbench_cli.evaluation.eval_context import EvalContext
from robustbench_cli.evaluation.search_model import exact_search_model
from robustbench_cli.evaluation.stages import AttackVerdicts, run_stages
from robustbench_cli.evaluation.tensors import Tensors
from robustbench_cli.evaluation.verifier import Verifier, unchanged_model

BASE = {"dataset": {"name": "digits"}, "model": {"name": "net"}, "defense": {}}


@dataclass(frozen=True, kw_only=True)
class Shrinking(Iterated):
    """A new attack whose step size shrinks to zero over its ``steps``; it declares nothing."""

    def loss(self, out, state, task, step_index):
        return cross_entropy(out.logits, task.y)

    def move(self, state, observation, task):
        left = 1 - int(observation.step_index[0]) / self.steps
        x = projected_step(state["x"], observation.grad, task.x, task.threat, self.step * left)
        return {"x": x}


@dataclass(frozen=True, kw_only=True)
class LateStart(PGD):
    """A subclass of an attack that is nested: it counts iterates of its second half only."""

    def counts(self, state, step_index):
        return 2 * step_index > self.steps


@dataclass(frozen=True, kw_only=True)
class Declared(PGD):
    """A subclass that changes nothing and says so."""

    nested_steps: ClassVar[bool] = True


def swept(attack, *steps):
    typed = {
        "attack": {"x": {"name": "pgd"}},
        "threat": {"eps": 0.1},
        "n": 30,
        "sweep": f"steps={','.join(map(str, steps))}",
    }
    return points({"x": attack}, resolve_eval_config(BASE, typed, []))


def verdicts(attack, threat):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 12), nn.ReLU(), nn.Linear(12, 4)).double()
    x = torch.rand(60, 1, 6, 6).double()
    with unchanged_model(net):
        y = net(x).argmax(1)
        search_model = exact_search_model(net)
        context = EvalContext(
            data=Tensors(x, y),
            threat=threat,
            verifier=Verifier(net),
            search_model=search_model,
            noise=Noise(0, torch.arange(60)),
        )
        column = AttackVerdicts.empty(60)
        stages = attack.stages(threat, 4)
        for _ in run_stages(stages, column, np.ones(60, bool), context, search_model):
            pass
    return column, y.numpy()


@pytest.mark.parametrize("attack", [Shrinking(step=0.3), LateStart(step=0.3), Declared(step=0.3)])
def test_a_new_attack_swept_is_what_it_is_alone(attack):
    """No run is contained in a longer one because a base class says that its own are."""
    columns = []
    found = swept(attack, 9, 4, 2)
    for point in found:
        alone, labels = verdicts(point.attack, point.threat)
        if point.within is not None:
            column = AttackVerdicts.empty(60)
            cut(column, columns[point.within], labels, point.until, point.attack.draws)
        else:
            column = alone
        columns.append(column)
        for key in ("by", "step", "forwards", "backwards"):
            assert np.array_equal(column.arrays[key], alone.arrays[key]), (point.label, key)
    contained = [point.within is not None for point in found]
    assert contained == [False, *[type(attack) is Declared] * 2]
    shares = [column.broken.mean() for column in columns]
    assert 0 < shares[-1] < 1


def test_reading_the_new_attacks_off_a_longer_run_would_be_wrong():
    """So that the test above can fail."""
    for attack in (Shrinking(step=0.3), LateStart(step=0.3)):
        longest, middle, _ = swept(attack, 9, 4, 2)
        whole, labels = verdicts(longest.attack, longest.threat)
        alone, _ = verdicts(middle.attack, middle.threat)
        column = AttackVerdicts.empty(60)
        cut(column, whole, labels, 4, 1)
        assert not np.array_equal(column.arrays["step"], alone.arrays["step"])


def test_every_class_declares_for_itself_that_its_runs_are_nested():
    for name in ATTACKS.names():
        attack = ATTACKS.build(Spec(name))
        if isinstance(attack, Iterated) and attack.nested:
            assert "nested_steps" in vars(type(attack)), name
            assert "steps" in [f.name for f in fields(attack)]
