"""The order of target classes: by logits, or by distance as if the model were linear; and MM."""

import numpy as np
import pytest
import torch
from torch import nn

from robustbench_cli.attacks import ATTACKS, Stage
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.evaluation.eval_context import EvalContext
from robustbench_cli.evaluation.nearest_classes import NearestClasses, classes_by_distance
from robustbench_cli.evaluation.search_model import exact_search_model
from robustbench_cli.evaluation.stages import AttackVerdicts
from robustbench_cli.evaluation.tensors import Tensors
from robustbench_cli.evaluation.verifier import Verifier, unchanged_model

NORMS = {"Linf": np.inf, "L2": 2, "L1": 1}
AIMING = [name for name in ATTACKS.names() if ATTACKS.accepts(name, "targeting")]


class Linear(nn.Module):
    """Six classes, each a linear function of an image of 1x4x4."""

    def __init__(self):
        super().__init__()
        draws = torch.Generator().manual_seed(5)
        self.head = nn.Linear(16, 6).double()
        self.head.weight.data = torch.randn(6, 16, generator=draws, dtype=torch.float64)
        self.head.bias.data = torch.randn(6, generator=draws, dtype=torch.float64)

    def forward(self, x):
        return self.head(x.flatten(1))


def examples(n=40):
    x = torch.rand(n, 1, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = 0.3 + 0.4 * x  # so far from the border that the box plays no part
    return x, Linear()(x).argmax(1)


def context_for(net, x, y, norm="Linf", eps=0.01, **more):
    return EvalContext(
        data=Tensors(x, y),
        threat=Threat(norm, eps),
        verifier=Verifier(net, False),
        search_model=exact_search_model(net),
        noise=Noise(0, torch.arange(len(y))),
        **more,
    )


def order_of(net, x, y, norm="Linf", slots=256):
    with unchanged_model(net):
        context, stage = context_for(net, x, y, norm, slots=slots), Stage("mt", built("mt"), 0)
        return classes_by_distance(stage, torch.arange(len(y)), context, context.search_model)


def built(text):
    return ATTACKS.build(Spec.parse(text))


@pytest.mark.parametrize("norm", NORMS)
def test_of_a_linear_model_the_distances_are_exact(norm):
    net, (x, y) = Linear(), examples()
    order, forwards, backwards = order_of(net, x, y, norm)
    assert (forwards, backwards) == (6, 5)
    dual = {"Linf": 1, "L2": 2, "L1": np.inf}[norm]
    weight, logits = net.head.weight.data, net(x).detach()
    for row, (label, found) in enumerate(zip(y.tolist(), order.tolist(), strict=True)):
        gaps = {
            c: float((logits[row, label] - logits[row, c]) / (weight[c] - weight[label]).norm(dual))
            for c in range(6)
            if c != label
        }
        assert found == [label, *sorted(gaps, key=gaps.get)]


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_one_step_of_its_distance_reaches_the_first_class(norm):
    net, (x, y) = Linear(), examples()
    order, *_ = order_of(net, x, y, norm)
    weight, logits, first = net.head.weight.data, net(x), order[:, 1]
    direction = weight[first] - weight[y]
    gaps = (logits.gather(1, y[:, None]) - logits.gather(1, first[:, None])).squeeze(1)
    sizes = gaps / direction.norm({"Linf": 1, "L2": 2}[norm], 1)
    step = Threat(norm, 1).steepest(direction.view_as(x))
    beyond = x + 1.0001 * sizes.view(-1, 1, 1, 1) * step
    assert torch.equal(net(beyond).argmax(1), first)
    short = x + 0.9999 * sizes.view(-1, 1, 1, 1) * step
    assert torch.equal(net(short).argmax(1), y)


def test_an_order_does_not_depend_on_the_batch():
    net, (x, y) = Linear(), examples()
    whole, *_ = order_of(net, x, y)
    for slots in (1, 7):
        nearest, found = NearestClasses(len(y)), []
        arrays = AttackVerdicts.empty(len(y)).arrays
        with unchanged_model(net):
            context = context_for(net, x, y, slots=slots)
            stage = Stage("mt", built("mt:targeting=malt"), 0)
            for rows in torch.arange(len(y)).split(11):
                got = nearest.context_for(stage, rows, context, context.search_model, arrays)
                assert (arrays["backwards"] > 0).nonzero()[0].max() == rows[-1]
                found.append(got.class_order[rows])
            paid = arrays["forwards"] + arrays["backwards"]
            again = nearest.context_for(
                stage, torch.arange(3), context, context.search_model, arrays
            )
        assert torch.equal(torch.cat(found), whole)
        # Each example is paid for once.
        assert (arrays["forwards"] + arrays["backwards"] == paid).all()
        assert torch.equal(again.class_order[:3], whole[:3])


def test_without_a_gradient_a_class_comes_last():
    class Dead(Linear):
        def forward(self, x):
            logits = super().forward(x)
            dead = torch.zeros_like(logits)
            dead[:, 2] = 1
            return logits * (1 - dead) + dead * (logits.detach().amax(1, keepdim=True) - 1e-3)

    net, (x, y) = Dead(), examples()
    y = net(x).argmax(1)
    order, *_ = order_of(net, x[y != 2], y[y != 2])
    assert (order[:, 0] == y[y != 2]).all()
    assert sorted(order[0].tolist()) == list(range(6))


@pytest.mark.parametrize("name", AIMING)
def test_every_attack_towards_classes_takes_the_nearest_first(name, run):
    net, (x, y) = Linear(), examples()
    order, *_ = order_of(net, x, y)
    threat = Threat("Linf", 0.2)
    text = f"{name}:steps=10,targeting=malt" + ",targets=1" * ATTACKS.accepts(name, "targets")
    found = run(net, x, y, text, threat)
    plain = run(net, x, y, text.replace("malt", "logits"), threat)
    reached = net(found.x).argmax(1)
    first = found.broken & (found.by == 0)
    assert first.sum() > 5
    assert (reached[first] == order[first, 1]).float().mean() > 0.9
    assert found.broken.sum() >= plain.broken.sum()
    # The comparison of the classes is paid for: a pass for the logits and one for each class.
    stands = ~found.broken & ~plain.broken
    assert (found.forwards[stands] - plain.forwards[stands] == 6).all()
    assert (found.backwards[stands] - plain.backwards[stands] == 5).all()


@pytest.mark.parametrize("name", AIMING)
def test_records_of_the_usual_order_are_what_they_were(name):
    assert "targeting" not in ATTACKS.describe(built(name))
    assert ATTACKS.describe(built(f"{name}:targeting=malt"))["targeting"] == "malt"
    with pytest.raises(UserError, match="targeting"):
        built(f"{name}:targeting=far")


@pytest.mark.parametrize("name", AIMING)
def test_with_a_target_there_is_nothing_to_choose(name):
    assert "there is one" in built(f"{name}:targeting=malt").no_target
    assert not built(name).no_target


# --- MM ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "targets", "steps"),
    [("mm3", 3, 20), ("mm9", 9, 20), ("mm", 3, 20), ("mm+", 9, 100), ("mm9:steps=5", 9, 5)],
)
def test_the_names_of_the_paper(text, targets, steps):
    attack = built(text)
    stages = attack.stages(Threat("Linf", 0.1), 10)
    assert (len(stages), attack.steps) == (targets, steps)
    assert len(attack.stages(Threat("Linf", 0.1), 4)) == 3


def test_an_image_that_stands_costs_steps_times_targets(run):
    net, (x, y) = Linear(), examples()
    found = run(net, x, y, "mm3:steps=7", Threat("Linf", 1e-6))
    assert not found.broken.any()
    # 7 steps and the last look towards each class, and a pass for the clean logits and the verdict.
    assert (found.backwards == 3 * 8).all()
    assert (found.forwards == 3 * 10).all()


def test_mm_breaks_what_a_linear_model_loses(run):
    net, (x, y) = Linear(), examples()
    order, *_ = order_of(net, x, y)
    weight, logits, first = net.head.weight.data, net(x), order[:, 1]
    gaps = (logits.gather(1, y[:, None]) - logits.gather(1, first[:, None])).squeeze(1)
    least = gaps / (weight[first] - weight[y]).norm(1, 1)
    found = run(net, x, y, "mm+:steps=30", Threat("Linf", 0.15))
    sure = (least < 0.99 * 0.15) | (least > 0.15)
    assert 5 < (least < 0.15).sum() < 35
    assert torch.equal(found.broken[sure], least[sure] < 0.15)
