"""FeaAtt: targets of other classes, features that come together, and models without any."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from robustbench_cli.attacks import ATTACKS, Stage, Task
from robustbench_cli.attacks.feaatt import WIDEST, random_other_class
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.evaluation.attack_loop import run_stage
from robustbench_cli.evaluation.batch_attack import attack_batch
from robustbench_cli.evaluation.eval_context import EvalContext
from robustbench_cli.evaluation.search_model import exact_search_model
from robustbench_cli.evaluation.tensors import Tensors
from robustbench_cli.evaluation.verifier import Verifier, unchanged_model

LINF = Threat("Linf", 0.2)


def build(text):
    return ATTACKS.build(Spec.parse(text))


def broken(model, x, y, text, threat=LINF, **rest):
    return attack_batch(model, x, y, build(text), threat, Noise(0, torch.arange(len(y))), **rest)


def test_targets_are_of_other_classes_and_every_one_is_drawn():
    y = torch.tensor([2, 0, 1, 1, 2, 0, 1, 1, 1])
    data = Tensors(torch.zeros(9, 1, 1, 1), y)
    asked = torch.tensor([0, 1, 2]).repeat(2000)
    noise = Noise(0, torch.arange(6000))
    rows = random_other_class(data, asked, noise)
    assert (y[rows] != asked).all()
    for label in range(3):
        drawn = torch.bincount(rows[asked == label], minlength=9)
        allowed = y != label
        share = drawn[allowed] / drawn.sum() * allowed.sum()
        assert ((share > 0.85) & (share < 1.15)).all()
    # Keyed by example and by lane.
    some = torch.tensor([5000, 7])
    assert torch.equal(random_other_class(data, asked[some], noise.only(some)), rows[some])
    assert (random_other_class(data, asked, noise.fork("restart 1")) != rows).float().mean() > 0.5
    assert random_other_class(Tensors(data.x, 0 * y), 0 * y, Noise(0, torch.arange(9))).max() < 9


def drive(net, x, y, attack):
    """The states and losses of one lane, without the engine's slots."""
    noise = Noise(0, torch.arange(len(y))).fork("restart 0")
    task = Task(
        x=x, y=y, clean=net(x), threat=LINF, noise=noise, restart_or_target=0, data=Tensors(x, y)
    )
    state, states, losses = attack.begin(task), [], []
    for taken in range(attack.steps + 2):
        assert torch.equal(attack.over(state, y * 0 + taken), (y * 0 + taken) > attack.steps)
        look, *_ = exact_search_model(net).observe(attack, state, task, y * 0 + taken)
        states.append(state)
        losses.append(look.loss)
        state = attack.move(state, look, task)
    return states, torch.stack(losses)


def test_features_come_together(digits_model):
    net, x, y = digits_model
    states, losses = drive(net, x, y, build("feaatt"))
    goal, target = states[1]["goal"], states[0]["x"]
    features = net.body(net.normalize(target))
    torch.testing.assert_close(goal[:, : features.shape[1]], features)
    assert goal[:, features.shape[1] :].abs().max() == 0
    assert torch.equal(states[-1]["goal"], goal)
    # The target has been left for a start in the ball.
    assert not LINF.inside(target, x).any()
    assert all(LINF.inside(state["x"], x).all() for state in states[1:])
    cosine = nn.functional.cosine_similarity(net.body(net.normalize(states[5]["x"])), features)
    torch.testing.assert_close(losses[5], cosine - 1)
    assert (losses[-1] > losses[1] + 0.05).all()


def test_a_look_at_the_target_never_counts(digits_model):
    """The target is of another class: it would be the easiest success of all."""
    net, x, y = digits_model
    found = broken(net, x, y, "feaatt2:steps=2,step=1", Threat("Linf", 1e-4))
    assert torch.equal(found.broken, net(x).argmax(1) != y)
    assert found.step[found.broken].eq(1).all()
    attack = build("feaatt:last_iterate=true")
    assert attack.counts({}, torch.tensor([0, 1, 20, 21])).tolist() == [False] * 3 + [True]


def test_it_breaks_a_net_and_more_targets_break_more(digits_model):
    net, x, y = digits_model
    few, many = (broken(net, x, y, f"feaatt{m}").broken for m in (1, 4))
    assert (few <= many).all()
    assert 2 < few.sum() < many.sum()
    assert many.sum() >= 10


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_images_stay_in_the_ball(norm, digits_model):
    net, x, y = digits_model
    threat = Threat(norm, {"Linf": 0.15, "L2": 1.0}[norm])
    found = broken(net, x, y, "feaatt2", threat)
    assert threat.inside(found.x, x).all()
    assert (net(found.x).argmax(1) != y).equal(found.broken)


def test_verdicts_depend_on_the_example_alone(digits_model):
    net, x, y = digits_model
    net, x = copy.deepcopy(net).double(), x.double()
    attack = build("feaatt:steps=8,step=0.25")
    with unchanged_model(net):
        context = EvalContext(
            data=Tensors(x, y),
            threat=LINF,
            verifier=Verifier(net),
            search_model=exact_search_model(net),
            noise=Noise(0, torch.arange(24)),
        )

        def verdicts(rows, slots):
            found = list(run_stage(Stage("feaatt", attack, 3), rows, replace(context, slots=slots)))
            order = torch.cat([part.rows for part in found]).argsort()
            return [
                torch.cat([getattr(part, name) for part in found])[order]
                for name in ("broken", "step", "x")
            ]

        whole = verdicts(torch.arange(24), 64)
        some = torch.tensor([17, 3, 11, 4, 20])
        for rows, slots in ((torch.arange(24), 3), (some, 64), (some.flip(0), 2)):
            for found, expected in zip(verdicts(rows, slots), whole, strict=True):
                wanted = expected[rows.sort().values]
                torch.testing.assert_close(found, wanted, rtol=0, atol=1e-9)
    assert 2 < whole[0].sum() < 23


def test_models_without_usable_features_are_refused():
    x, y = torch.rand(3, 1, 8, 8), torch.tensor([0, 1, 2])
    plain = nn.Sequential(nn.Conv2d(1, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(UserError, match="no last linear layer"):
        broken(plain, x, y, "feaatt1")
    huge = nn.Sequential(nn.Conv2d(1, 200, 1), nn.Flatten(), nn.Linear(200 * 64, 3))
    with pytest.raises(UserError, match=f"at most {WIDEST} features, not 12800"):
        broken(huge, x, y, "feaatt1")


def test_names():
    attack = build("feaatt100")
    assert (attack.steps, attack.restarts_or_targets(10)) == (20, 100)
    assert attack.step * 8 == 1
    assert build("feaatt200:steps=50").restarts_or_targets(10) == 200
