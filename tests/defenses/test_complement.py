"""GCE and COT: hand-computed values, limits and gradients, and COT's two optimisers."""

import copy
import math
from contextlib import ExitStack

import pytest
import torch
import torch.nn.functional as F

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.losses import complement_entropy
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.defenses import DEFENSES, Recipe, parse
from robustbench_cli.defenses._step import Passes, Setting, Step
from robustbench_cli.defenses.cot import WeightCopies
from robustbench_cli.models import Shape

LOGITS = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 3.0]], dtype=torch.float64)
Y = torch.tensor([0, 1])


def gce(**params):
    return DEFENSES.build(Spec("gce", params))


def step_of(model, batch, **more):
    x, y = batch
    noise = Noise(0, torch.arange(len(x)))
    threat = Threat("Linf", 0.1)
    return Step(model=model, x=x, y=y, classes=4, threat=threat, noise=noise, **more)


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({}, [-0.733233, -0.133593]),
        ({"alpha": 0.2}, -0.476300),
        ({"alpha": 1}, -0.295104),
        ({"alpha": 0}, -0.557651),
        ({"variant": "code"}, -0.273453),
        ({"variant": "code-rounding"}, -0.273453),
    ],
)
def test_gce_by_hand(params, expected):
    """Three classes, logits (2, 1, 0) with label 0 and (0, 1, 3) with label 1."""
    values = gce(**params).score(LOGITS, Y)
    found = values.tolist() if isinstance(expected, list) else values.mean().item()
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("variant", "expected"), [("code", -0.128845), ("paper", -0.193267)])
def test_the_complement_entropy_by_hand(variant, expected):
    cot = DEFENSES.build(Spec("cot", {"variant": variant}))
    step = step_of(None, (LOGITS, Y), update_index=1)
    value = cot.loss(step, Passes(lambda x: x, {"clean": LOGITS})).mean()
    assert value.item() == pytest.approx(expected, abs=1e-6)


def in_probabilities(logits, y, alpha):
    """Return the loss by the paper's formula, in probabilities instead of logarithms."""
    total = []
    for row, label in zip(torch.softmax(logits, 1), y.tolist(), strict=True):
        rest = [row[k] / (1 - row[label]) for k in range(len(row)) if k != label]
        total.append(row[label] ** alpha * sum(q * torch.log(q) for q in rest))
    return torch.stack(total) / math.log(logits.shape[1] - 1)


def test_it_equals_the_form_with_probabilities_gradients_included():
    logits = torch.randn(8, 5).double().requires_grad_()
    y = torch.arange(8) % 5
    ours, theirs = gce().score(logits, y), in_probabilities(logits, y, 1 / 3)
    torch.testing.assert_close(ours, theirs)
    gradients = [torch.autograd.grad(loss.sum(), logits)[0] for loss in (ours, theirs)]
    torch.testing.assert_close(*gradients)
    assert gradients[0].sum(1).abs().max() < 1e-12  # logits are known up to a constant


def test_the_gradient_at_the_true_class_s_logit():
    """-alpha p^alpha (1 - p) H / log(C - 1)."""
    logits = torch.randn(8, 5).double().requires_grad_()
    y = torch.arange(8) % 5
    (slope,) = torch.autograd.grad(gce().score(logits, y).sum(), logits)
    p = torch.softmax(logits, 1)[range(8), y]
    expected = -(p ** (1 / 3)) * (1 - p) / 3 * complement_entropy(logits, y) / math.log(4)
    torch.testing.assert_close(slope[range(8), y], expected)


def test_the_gradient_vanishes_at_p_0_and_1_and_large_logits_stay_finite():
    for true in (-1e4, -60.0, 60.0, 1e4):
        logits = torch.tensor([[true, 0.3, 0.1, -0.2]], requires_grad=True)
        value = gce().score(logits, torch.tensor([0]))
        (slope,) = torch.autograd.grad(value.sum(), logits)
        assert torch.isfinite(slope).all()
        assert slope[0, 0].abs() < 1e-8
        assert value.item() == pytest.approx(-0.982 if true > 0 else 0, abs=0.01)
    logits = torch.tensor([[0.0, 1e4, -1e4, 3.0]], requires_grad=True)
    (slope,) = torch.autograd.grad(gce().score(logits, torch.tensor([0])).sum(), logits)
    assert torch.isfinite(slope).all()


def test_a_uniform_complement_minimises_the_loss_whatever_the_true_logit():
    even = torch.tensor([[1.5, 0.0, 0.0, 0.0]]).double()
    p = torch.softmax(even, 1)[0, 0].item()
    assert gce().score(even, torch.tensor([0])).item() == pytest.approx(-(p ** (1 / 3)))
    logits, y = torch.randn(4, 5).double(), torch.arange(4)
    moved = logits.scatter_add(1, y[:, None], torch.full((4, 1), 9.0).double())
    torch.testing.assert_close(complement_entropy(moved, y), complement_entropy(logits, y))


def test_gce_at_climbs_its_own_loss(model, batch):
    """Loss and every weight gradient of a batch, written out in plain torch."""
    x, y = batch
    net, twin = copy.deepcopy(model).train(), copy.deepcopy(model).eval()
    step = step_of(net, batch)
    moved = step.threat.random_start(x, step.noise.fork("start"))
    for _ in range(10):
        leaf = moved.clone().requires_grad_()
        (grad,) = torch.autograd.grad(in_probabilities(twin(leaf), y, 1 / 3).sum(), leaf)
        moved = leaf.detach() + 0.025 * grad.sign()
        moved = torch.min(torch.max(moved, x - 0.1), x + 0.1).clamp(0, 1)
    expected = in_probabilities(twin.train()(moved), y, 1 / 3).mean()
    expected.backward()
    with ExitStack() as release:
        ours = Recipe.build(parse("gce-at")).backward(step, release)
    torch.testing.assert_close(ours.loss, expected.detach())
    torch.testing.assert_close(
        [p.grad for p in net.parameters()], [p.grad for p in twin.parameters()]
    )


@pytest.mark.parametrize("decay", [0.0, 0.01])
@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_cot_is_two_optimisers_in_turn(kind, decay, model, batch):
    """Compared with the official loop's two: one on cross-entropy, one on the complement."""
    x, y = batch
    net, twin = copy.deepcopy(model).train(), copy.deepcopy(model).train()
    recipe = Recipe.build(parse("cot"))
    shape = Shape(1, 8, 8, 4, (0.2,), (0.7,))
    auxiliaries = recipe.auxiliaries(
        Setting(model=net, shape=shape, batch_size=6, fresh=lambda: net)
    )

    def optimizer(parameters):
        if kind == "sgd":
            return torch.optim.SGD(parameters, 0.05, momentum=0.9, weight_decay=decay)
        return torch.optim.Adam(parameters, 0.01, weight_decay=decay)

    ours = optimizer([{"params": list(net.parameters())}, *recipe.groups(auxiliaries)])
    primary, complement = optimizer(twin.parameters()), optimizer(twin.parameters())
    for _ in range(3):
        for update_index in range(recipe.objective.updates_per_batch):
            step = step_of(
                net, batch, update_index=update_index, auxiliaries=dict(auxiliaries.items())
            )
            ours.zero_grad()
            with ExitStack() as release:
                recipe.backward(step, release)
                ours.step()
            recipe.after_optimizer_step(step)
        primary.zero_grad()
        F.cross_entropy(twin(x), y).backward()
        primary.step()
        complement.zero_grad()
        logits = twin(x)
        wrong = torch.ones(6, 4).bool().scatter(1, y[:, None], False)
        q = torch.softmax(logits[wrong].view(6, 3), 1)
        ((q * q.log()).sum(1).mean() / 3).backward()
        complement.step()
    torch.testing.assert_close(net.state_dict(), twin.state_dict())
    torch.testing.assert_close(list(auxiliaries["COT"].copies), list(net.parameters()))
    assert isinstance(auxiliaries["COT"], WeightCopies)


@pytest.mark.parametrize("name", ["gce", "gce-at", "cot"])
def test_two_classes_are_refused(name, model):
    shape = Shape(1, 8, 8, 2, (0.2,), (0.7,))
    setting = Setting(model=model, shape=shape, batch_size=6, fresh=lambda: model)
    with pytest.raises(UserError, match=f"{name} spreads the wrong classes' shares"):
        Recipe.build(parse(name)).auxiliaries(setting)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gce+ls", "gce scores labels with a loss of its own"),
        ("gce-at+he", "gce-at scores labels with a loss of its own; he"),
        ("gce+mixup", "one label per image"),
        ("cot+mixup", "one label per image"),
    ],
)
def test_combinations_that_make_no_sense_are_refused(text, message):
    with pytest.raises(UserError, match=message):
        Recipe.build(parse(text)).check(10)
