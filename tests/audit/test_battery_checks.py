"""Battery checks on nets made for them: each passes what is right, and finds the fault."""

import copy
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from robustbench_cli.attacks import ATTACKS, Stage
from robustbench_cli.audit import CHECKS, Battery, JudgedAttack
from robustbench_cli.audit._binarised import binarised, inner_points, outer_point
from robustbench_cli.audit._reference import ClassMeans, GradientKiller, surely_breakable
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.evaluation.batch_attack import attack_batch
from robustbench_cli.evaluation.tensors import Tensors
from robustbench_cli.evaluation.verifier import unchanged_model

EPS = 0.12


def judged(attack, broken, eps=EPS, by=None):
    n = len(broken)
    return JudgedAttack(
        label="pgd10",
        attack=attack,
        stages=attack.stages(Threat("Linf", eps), 10),
        eps=eps,
        swept=False,
        broken=broken,
        share=1.0 - broken,
        by=np.where(broken, 0, -1) if by is None else by,
        step=np.where(broken, 1, -1),
        tried=np.ones(n, int),
        zero_gradient=np.zeros(n, bool),
    )


def battery_of(net, x, y, *, eps=EPS, norm="Linf", spec="pgd10", **more):
    """A battery after a real attack, whose further attacks are real, too."""
    threat, noise = Threat(norm, eps), Noise(0, torch.arange(len(y)))
    attack = ATTACKS.build(Spec.parse(spec))
    with torch.no_grad():
        right = (net(x).argmax(1) == y).numpy()
    done = attack_batch(net, x, y, attack, threat, noise)

    def run(check, label, attack, *, eps=None, among=None, source=None, judge=None):
        ball = threat if eps is None else replace(threat, eps=eps)
        found = attack_batch(judge or source or net, x, y, attack, ball, noise)
        with torch.no_grad():
            broken = ((judge or net)(found.x).argmax(1) != y).numpy() & right
        return judged(attack, broken & (right if among is None else among), ball.eps)

    return Battery(
        model=net,
        data=Tensors(x, y),
        classes=10,
        threat=threat,
        noise=noise,
        random=False,
        right=right,
        claimed=judged(attack, done.broken.numpy() & right, eps),
        images=done.x,
        run=run,
        **more,
    )


@pytest.fixture(scope="module")
def honest(digits_model):
    net, x, y = digits_model
    with unchanged_model(net):
        # Strong enough to have converged whatever machine has trained the net.
        yield battery_of(net, x, y, spec="pgd20:restarts=3")


FEW = {"binarization": {"images": 8}, "loss-surface": {"images": 8, "points": 20}}
"""Fewer images for checks that take long."""


def findings(name, battery):
    return list(CHECKS.build(Spec(name, FEW.get(name, {}))).examine(battery))


def grave(name, battery):
    return [each for each in findings(name, battery) if each.severity != "info"]


@pytest.mark.parametrize(
    "name",
    [
        *("binarization", "eps-units", "feasibility", "linearity", "more-steps", "protocol"),
        *("radius", "self-test", "unbounded", "leakage", "transfer", "loss-surface", "eight-bits"),
    ],
)
def test_an_honest_net_passes(name, honest):
    assert not grave(name, honest)
    assert any(each.check == name for each in honest.measures)


class Stairs(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net
        self.head = net.head

    def forward(self, x):
        return self.net((x * 16).round() / 16 + 0 * x)


@pytest.mark.parametrize("name", ["binarization", "unbounded", "radius"])
def test_a_net_without_gradients_does_not(name, digits_model):
    net, x, y = digits_model
    masked = Stairs(net).eval()
    with unchanged_model(masked):
        assert grave(name, battery_of(masked, x, y))


def test_without_training_images_a_student_stands_for_them_where_gradients_fail(
    honest, digits_model
):
    net, x, y = digits_model
    masked = Stairs(net).eval()
    with unchanged_model(masked):
        battery = battery_of(masked, x, y)
        findings("transfer", battery)
    assert "a student of the model broke" in battery.measures[-1].text
    findings("transfer", honest)
    assert "gradients are sound" in honest.measures[-1].text
    taught = replace(honest, plain=lambda: net)
    findings("transfer", taught)
    assert "a plain net broke" in taught.measures[-1].text


def test_the_binarised_net_has_the_error_that_is_planted(digits_model):
    net, x, _ = digits_model
    threat = Threat("Linf", EPS)
    for row in range(4):
        one, noise = x[row : row + 1], Noise(0, torch.tensor([row]))
        made = binarised(net, one, threat, noise)
        assert made is not None
        with torch.no_grad():
            outer = outer_point(one, threat, noise)
            assert made(outer).argmax(1).item() == 1
            assert made(one).argmax(1).item() == 0
            assert made(inner_points(one, threat, noise, 16)).argmax(1).sum() == 0
        assert threat.distance(outer, one).item() == pytest.approx(EPS, rel=1e-4)
        assert threat.inside(outer, one).all()


def test_a_net_in_float64_can_be_binarised(digits_model):
    _, x, _ = digits_model

    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = copy.deepcopy(digits_model[0]).double()
            self.head = self.net.head

        def forward(self, x):
            return self.net(x.double())

    made = binarised(Wide().eval(), x[:1], Threat("Linf", EPS), Noise(0, torch.tensor([0])))
    assert made is not None
    assert made(x[:2]).dtype == x.dtype


def test_what_must_fall_falls_and_no_more_is_asked(digits_model):
    _, x, y = digits_model
    net = ClassMeans(Tensors(x, y), 10)
    must = surely_breakable(net, x, y, Threat("Linf", EPS))
    small = surely_breakable(net, x, y, Threat("Linf", 1e-6))
    assert must.any()
    assert not small.any()


def test_an_attack_that_does_not_work_fails_its_self_test(digits_model):
    net, x, y = digits_model
    with unchanged_model(net):
        battery = battery_of(net, x, y, spec="corners1")
        (found,) = grave("self-test", battery)
    assert found.severity == "error"
    assert "pgd10 broke" in found.message  # the label of the claimed attack


def test_the_planted_net_answers_alike_and_has_no_gradient(digits_model):
    net, x, _ = digits_model
    killer = GradientKiller(net)
    start = x.clone().requires_grad_()
    out = killer(start)
    assert torch.equal(out, net(x))
    (grad,) = torch.autograd.grad(out.sum(), start)
    assert not grad.any()


def test_images_that_are_stored_wrongly_are_found(honest):
    moved = honest.images.clone()
    broken = torch.from_numpy(honest.claimed.broken.nonzero()[0])
    moved[broken[0]] = honest.data.x[broken[0]]  # the clean image, which is right
    moved[broken[1]] = (moved[broken[1]] + 0.5).clamp(0, 1)
    found = findings("feasibility", replace(honest, images=moved))
    said = {each.message for each in found}
    assert any("outside the ball" in text for text in said)
    assert any("classified correctly" in text for text in said)
    assert {each.severity for each in found} == {"error"}


def test_an_attack_on_the_last_digit_does_not_survive_rounding(honest):
    x, y = honest.data.x, honest.data.y
    tiny = (x + 1e-4).clamp(0, 1)
    attack = replace(honest.claimed, broken=honest.right)
    (found,) = findings("eight-bits", replace(honest, images=tiny, claimed=attack))
    assert found.images == int(honest.right.sum())
    assert len(y) >= found.of


@pytest.mark.parametrize(("share", "severity"), [(0.5, "warning"), (1 / 24, "info")])
def test_training_images_among_the_test_images_are_counted(honest, share, severity):
    x = honest.data.x
    count = round(share * len(x))
    seen = x[:count].clone()
    seen[0, 0, 0, 0] = (seen[0, 0, 0, 0] - 1 / 255).abs()  # a near duplicate
    other = torch.rand(50, *x.shape[1:])
    train = Tensors(torch.cat([other, seen]), torch.zeros(50 + count, dtype=torch.long))
    leaky = replace(honest, train=lambda: train)
    (found,) = CHECKS.build(Spec("leakage", {"share": 0.1})).examine(leaky)
    assert (found.images, found.severity) == (count, severity)
    assert "1 nearly" in found.message


@pytest.mark.parametrize(
    ("eps", "severity"), [(0.031, "info"), (8 / 255 / 255, "warning"), (8 / 255, None)]
)
def test_radii_in_other_units_are_told(honest, eps, severity):
    found = findings("eps-units", replace(honest, threat=Threat("Linf", eps)))
    assert [each.severity for each in found] == ([severity] if severity else [])


def test_the_last_iterate_alone_and_classes_that_are_missing_are_told(honest):
    last = ATTACKS.build(Spec("pgd", {"last_iterate": True}))
    aimed = ATTACKS.build(Spec("apgd-t"))
    stages = [Stage("pgd", last, 0), Stage("apgd-t", aimed, 0)]
    odd = replace(honest, classes=5, claimed=replace(honest.claimed, stages=stages))
    said = [each.message for each in findings("protocol", odd)]
    assert any("last iterate" in text for text in said)
    assert any("4 classes" in text for text in said)


def test_costly_checks_draw_the_same_images_whatever_the_order(honest):
    some = honest.some(honest.right, 5)
    assert some.sum() == 5
    assert (some <= honest.right).all()
    assert np.array_equal(some, honest.some(honest.right, 5))
    assert np.array_equal(replace(honest, thorough=True).some(honest.right, 5), honest.right)


def test_accuracy_that_rises_with_the_radius_is_found(honest):
    def rising(check, label, attack, *, eps=None, among=None, source=None):
        broken = honest.right & (np.arange(honest.n) % 2 == 0) & (eps < 0.2)
        return judged(attack, broken, eps)

    found = grave("radius", replace(honest, run=rising))
    assert any("rises from eps 0.12 to 0.24" in each.message for each in found)
    assert any("does not reach zero" in each.message for each in found)


@pytest.mark.parametrize("name", ["transfer", "black-box", "losses"])
def test_a_few_images_are_mentioned_and_nothing_is_concluded_from_them(name):
    check = CHECKS.build(Spec(name))
    about = {"what": "a plain net", "value": 1 / 64, "threshold": 0.02, "accuracy": 0.4}
    marked = check.broken(9, 64, marked=True, **about)
    mentioned = check.broken(1, 64, marked=False, **about)
    assert marked.message.endswith(check.means)
    assert mentioned.severity == "info"
    assert re.search("broke 1 of (the )?64 images", mentioned.message)
    assert check.means not in mentioned.message
