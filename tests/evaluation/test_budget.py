"""What an evaluation may spend: blocks of examples, by passes and by time."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from robustbench_cli.attacks import ATTACKS, IterativeAttack
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.evaluation import budget
from robustbench_cli.evaluation.batch_attack import attack_batch
from robustbench_cli.evaluation.budget import Allowance, Budget, PassAllowance, TimeAllowance
from robustbench_cli.evaluation.eval_context import EvalContext
from robustbench_cli.evaluation.search_model import exact_search_model
from robustbench_cli.evaluation.stage_cost import most_passes
from robustbench_cli.evaluation.tensors import Tensors
from robustbench_cli.evaluation.verifier import Verifier

SHORT = {"steps": 6, "queries": 20, "pairs": 2, "restarts": 1, "targets": 2, "budget": 300}
FAB = {"within": True, "steps": 6, "targets": 2}
SIZES = {"Linf": 0.1, "L2": 0.1, "L1": 0.1, "L0": 4, "patch": 3, "spatial": 1}


class Costs:
    """Examples with a cost each, which is known once they are done."""

    def __init__(self, costs):
        self._costs, self.spent = np.array(costs), np.zeros(len(costs), int)

    def finish(self, rows):
        self.spent[rows.numpy()] = self._costs[rows.numpy()]


def run(allowance, costs, most, batch=None):
    """Return how many examples were done, in order."""
    allowance.count(costs)
    rows = torch.from_numpy((costs.spent == 0).nonzero()[0])
    for block in allowance.blocks(rows, most):
        for part in block.split(batch or len(block)):
            costs.finish(part)
    done = costs.spent > 0
    assert not done[int(done.sum()) :].any()
    return int(done.sum())


@pytest.mark.parametrize("limit", [3, 10, 57, 100, 1000, 5000])
def test_passes_finish_what_one_after_the_other_would(limit):
    costs = np.random.default_rng(limit).integers(1, 11, 200)
    spent = expected = 0
    while expected < len(costs) and limit - spent >= 10:
        spent, expected = spent + costs[expected], expected + 1
    allowance = PassAllowance(limit)
    assert run(allowance, Costs(costs), 10, batch=7) == expected
    assert allowance.passes == spent <= limit
    assert allowance.out == (expected < len(costs))


@pytest.mark.parametrize(("first", "second"), [*itertools.combinations([5, 60, 200, 700], 2)])
def test_passes_in_two_sessions_are_those_of_one(first, second):
    known = np.random.default_rng(first).integers(1, 11, 100)
    costs = Costs(known)
    run(PassAllowance(first), costs, 10)
    assert run(PassAllowance(second), costs, 10) == run(PassAllowance(second), Costs(known), 10)


def test_without_a_budget_everything_is_one_block():
    blocks = [*Allowance().blocks(torch.arange(5), 10**9)]
    assert [len(each) for each in blocks] == [5]
    assert not Allowance().out


class Clock:
    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(budget.time, "perf_counter", lambda: self.now)


def test_a_time_begins_what_will_be_done_by_then(monkeypatch):
    clock, costs = Clock(monkeypatch), Costs([10] * 100)
    allowance = TimeAllowance(20.0, earlier_seconds=10.0)
    allowance.count(costs)
    allowance.start()
    costs.finish(torch.arange(8))
    clock.now += 1.0  # 8 images and 80 passes a second: 9 seconds are left, for 72 images
    blocks = []
    for block in allowance.blocks(torch.arange(8, 100), 20):
        blocks.append(len(block))
        costs.finish(block)
        clock.now += len(block) / 8
    assert blocks[0] == 36  # each could cost twice as much
    assert sum(blocks) == 72
    assert allowance.seconds == pytest.approx(20)
    assert allowance.expired
    assert [*allowance.blocks(torch.arange(3), 1)] == []


def test_time_after_the_attacks_is_not_counted(monkeypatch):
    clock, allowance = Clock(monkeypatch), TimeAllowance(5.0)
    allowance.start()
    clock.now += 2.0
    allowance.stop()
    clock.now += 100.0
    assert allowance.seconds == 2.0
    assert not allowance.expired


@pytest.mark.parametrize(
    ("text", "limit"),
    [("90s", 90), ("10m", 600), ("2h", 7200), ("1.5h", 5400), ("50000passes", 50000)],
)
def test_budgets_are_read(text, limit):
    assert Budget(text).limit == limit


@pytest.mark.parametrize(
    "text",
    ["", "10", "10k", "0s", "0passes", "1.5passes", "-5s", "10 m", "3d", "1e3passes", "nans", "٣s"],
)
def test_anything_else_is_refused_in_one_line(text):
    with pytest.raises(UserError, match="give a time such as 90s, 10m or 2h") as error:
        Budget(text)
    assert "\n" not in str(error.value)


def test_a_budget_goes_on_with_its_own_kind_only():
    def left(text):
        asked = Budget(text)
        return asked.spent(asked.allowance(None), classified=0, ran_out=True)

    assert Budget("20m").continues(left("10m"))
    assert Budget("600s").continues(left("10m"))
    assert not Budget("5m").continues(left("10m"))
    assert not Budget("20m").continues(left("10passes"))
    assert Budget("10passes").continues(left("10passes"))
    assert not Budget("10passes").continues(left("11passes"))
    assert not Budget("10passes").continues(None)


def test_a_number_of_passes_leads_to_nothing_that_is_timed():
    assert Budget("2s").timed_passes(1000.0) == 2000
    assert Budget("2000passes").timed_passes(1000.0) == 0
    assert Budget("2000passes").in_passes(1000.0) == 2000


def short(name):
    fields = ATTACKS.entry(name).cls.__dataclass_fields__
    return ATTACKS.build(Spec(name, {k: v for k, v in SHORT.items() if k in fields}))


def has_bound(name):
    attack = short(name)
    stages = attack.stages(Threat(attack.measures[0], SIZES[attack.measures[0]]), 10)
    external = not all(isinstance(stage.attack, IterativeAttack) for stage in stages)
    # Of views the passes are counted in a test of their own; series are made of others.
    return not (attack.minimal or attack.fits or external or len({s.member for s in stages}) > 1)


@pytest.mark.parametrize("name", [name for name in ATTACKS.names() if has_bound(name)] + ["fab-t"])
def test_no_stage_costs_more_than_its_bound(name):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 10)).eval()
    x = torch.rand(8, 1, 8, 8)
    y = net(x).argmax(1)
    attack = short(name) if name != "fab-t" else ATTACKS.build(Spec(name, FAB))
    for norm in attack.measures:
        threat, noise = Threat(norm, SIZES[norm]), Noise(0, torch.arange(8))
        context = EvalContext(
            data=Tensors(x, y),
            threat=threat,
            verifier=Verifier(net),
            search_model=exact_search_model(net),
            noise=noise,
            classes=10,
        )
        stages = attack.stages(threat, 10)
        most = sum(most_passes(stage, context, context.search_model) for stage in stages)
        found = attack_batch(net, x, y, attack, threat, noise)
        assert int((found.forwards + found.backwards).max()) <= most, norm
