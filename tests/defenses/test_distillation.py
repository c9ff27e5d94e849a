"""Distillation from frozen teachers, and from a natural network that is trained alongside."""

import copy
from contextlib import ExitStack
from dataclasses import replace

import pytest
import torch

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.defenses import DEFENSES, Recipe, parse
from robustbench_cli.defenses._guidance import mean_squared_gap
from robustbench_cli.defenses._step import Passes, Setting, Step
from robustbench_cli.models import MODELS, Shape

SHAPE = Shape(1, 8, 8, 4, (0.2,), (0.7,))
TAUGHT = ["ard", "iad", "rslad", "bgat", "akd2", "iad-ii"]
GUIDED = ["lbgat", "lbgat-alp", "lbgat0", "lbgat6"]


def net(seed, width=4):
    torch.manual_seed(seed)
    return MODELS.build(Spec("digits-cnn", {"width": width})).build(SHAPE).double()


def step_of(model, batch, recipe, epoch=0):
    x, y = batch
    setting = Setting(model=model, shape=SHAPE, batch_size=len(x), fresh=lambda: net(9))
    return Step(
        model=model,
        x=x,
        y=y,
        classes=4,
        threat=Threat("Linf", 0.1),
        noise=Noise(0, torch.arange(len(x))),
        epoch=epoch,
        teachers=tuple(net(i, 6).eval().requires_grad_(False) for i in (1, 2)),
        auxiliaries=dict(recipe.auxiliaries(setting).double().items()),
    )


def learned(text, model, batch, epoch=0, **changes):
    """Return the gradient that one batch leaves in a copy of the model."""
    recipe, student = Recipe.build(parse(text)), copy.deepcopy(model).train()
    step = replace(step_of(student, batch, recipe, epoch), **changes)
    if recipe.objective.teachers == 1:
        step = replace(step, teachers=step.teachers[:1])
    with ExitStack() as release:
        recipe.backward(step, release)
    return [p.grad for p in student.parameters()]


@pytest.mark.parametrize("text", TAUGHT)
def test_the_teacher_is_unchanged_and_determines_the_gradient(text, model, batch):
    recipe = Recipe.build(parse(text))
    step = step_of(model.train(), batch, recipe)
    before = copy.deepcopy([teacher.state_dict() for teacher in step.teachers])
    ours = learned(text, model, batch, teachers=step.teachers)
    for teacher, was in zip(step.teachers, before, strict=True):
        torch.testing.assert_close(teacher.state_dict(), was, rtol=0, atol=0)
        assert all(p.grad is None for p in teacher.parameters())
        assert not teacher.training
    others = learned(text, model, batch, teachers=step.teachers[::-1])
    assert any(not torch.allclose(a, b) for a, b in zip(ours, others, strict=True))


@pytest.mark.parametrize("text", TAUGHT)
def test_teacher_logits_carry_no_gradient(text, model, batch):
    recipe = Recipe.build(parse(text))
    step = step_of(model, batch, recipe)
    known = recipe.objective.crafted(replace(step, teachers=step.teachers[-2:]))
    assert not any(tensor.requires_grad for tensor in known.values())


@pytest.mark.parametrize("text", ["ard", "bgat", "rslad"])
def test_labels_do_not_enter_the_loss(text, model, batch):
    """ARD with alpha 1, RSLAD and BGAT learn from the teacher alone, on given images."""
    recipe = Recipe.build(parse(text))
    step = step_of(model, batch, recipe)
    passes = Passes(model, {"clean": step.x, **recipe.objective.crafted(step)})
    other = replace(step, y=(step.y + 1) % 4)
    torch.testing.assert_close(
        recipe.objective.loss(step, passes), recipe.objective.loss(other, passes), rtol=0, atol=0
    )


def test_rslad_needs_no_labels_at_all(model, batch):
    bare = learned("rslad", model, (batch[0], torch.full_like(batch[1], -100)))
    torch.testing.assert_close(learned("rslad", model, batch), bare, rtol=0, atol=0)


def test_a_student_that_agrees_with_its_teacher_has_a_zero_gradient(model, batch):
    """At the clean image the gradient is zero, so that RSLAD's attack must not start there."""
    model.eval()
    teacher = copy.deepcopy(model).requires_grad_(False)
    taught = teacher(batch[0])
    inputs = {"clean": batch[0], "adv": batch[0], "taught": taught}
    recipe = Recipe.build(parse("rslad"))
    step = replace(step_of(model, batch, recipe), teachers=(teacher,))
    loss = recipe.objective.loss(step, Passes(model, inputs)).sum()
    assert abs(loss.item()) < 1e-12
    for grad in torch.autograd.grad(loss, list(model.parameters())):
        assert grad.abs().max() < 1e-12
    with pytest.raises(UserError, match="rslad: start='clean' has a zero KL gradient"):
        Recipe.build(parse("rslad:start=clean")).check(epochs=10)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("iad:beta=0", "ard:temperature=1,variant=paper"),
        ("iad:beta=0,variant=code", "ard:temperature=1,variant=paper"),
        ("iad:begin=1", "ard:temperature=1,variant=paper"),
        ("iad:beta=0,temperature=5", "ard:temperature=5,variant=paper"),
        ("iad-ii:beta=0", "akd2"),
        ("iad-ii:begin=1", "akd2"),
        ("akd2:robust=0,natural=0", "pgd-at"),
        ("ard:alpha=0", "standard"),
        ("lbgat-alp:alpha=0", "lbgat"),
        ("lbgat-trades:beta=0", "lbgat0"),
    ],
)
def test_at_its_limits_a_method_equals_a_simpler_one(text, same, model, batch):
    torch.testing.assert_close(
        learned(text, model, batch), learned(same, model, batch), rtol=1e-9, atol=1e-12
    )


def test_trust_is_the_teacher_s_share_of_the_label_on_the_attacked_image(model, batch):
    for text, epoch in (("iad:beta=2,begin=5", 5), ("iad-ii:beta=2,begin=5", 5)):
        recipe = Recipe.build(parse(text))
        step = step_of(model, batch, recipe, epoch)
        known = recipe.objective.crafted(step)
        share = step.teachers[0](known["adv"]).softmax(1)[range(6), step.y]
        torch.testing.assert_close(known["trust"], share**2)
        before = recipe.objective.crafted(replace(step, epoch=4))["trust"]
        assert torch.equal(before, torch.ones(6).double())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rslad+ls", "rslad as it is set scores no labels; label-smoothing would change a"),
        ("ard+ls", "ard as it is set scores no labels"),
        ("bgat+he", "bgat as it is set scores no labels; he would"),
        ("akd2:robust=1/2,natural=1/2+ls", "akd2 as it is set scores no labels"),
        ("iad:begin=10", "iad would never look at its own answers: that starts after 10 epochs"),
        ("iad-ii:begin=40", "starts after 40 epochs and the run has 10; use begin=0"),
        ("lbgat:natural=resnet-18+he", "he changes the architecture, but not that of natural=res"),
        ("lbgat6:start=clean", "lbgat-trades: start='clean' has a zero KL gradient"),
        ("iad+mixup", "mixup: iad needs one label per image"),
    ],
)
def test_combinations_that_make_no_sense_are_refused(text, message):
    with pytest.raises(UserError, match=message):
        Recipe.build(parse(text)).check(epochs=10)


@pytest.mark.parametrize("text", ["ard:alpha=0.9+ls", "akd2+ls", "lbgat+he+awp", "rslad+mixup"])
def test_other_combinations_are_allowed(text):
    Recipe.build(parse(text)).check(epochs=10)


def test_weights_of_more_than_one_are_refused():
    with pytest.raises(UserError, match=r"robust=0.8 and natural=0.25 are more than 1 together"):
        DEFENSES.build(Spec("akd2", {"robust": "0.8"}))


@pytest.mark.parametrize("text", GUIDED)
def test_both_nets_are_trained_and_the_distance_reaches_both(text, model, batch):
    recipe = Recipe.build(parse(text))
    step = step_of(model.train(), batch, recipe)
    (natural,) = step.auxiliaries.values()
    counter = next(m for m in natural.modules() if isinstance(m, torch.nn.BatchNorm2d))
    before = int(counter.num_batches_tracked)
    with ExitStack() as release:
        recipe.backward(step, release)
    assert int(counter.num_batches_tracked) == before + 1  # one pass, in train mode
    (group,) = recipe.groups(torch.nn.ModuleDict(step.auxiliaries))
    assert [*map(id, group["params"])] == [*map(id, natural.parameters())]
    pulled = [p.grad.clone() for p in natural.parameters()]

    alone = copy.deepcopy(natural).requires_grad_(True)
    criterion = torch.nn.functional.cross_entropy(alone(step.x), step.y)
    labelled = torch.autograd.grad(criterion, list(alone.parameters()))
    assert any(not torch.allclose(a, b) for a, b in zip(pulled, labelled, strict=True))


def test_the_robust_net_s_gradient_is_the_same_with_a_frozen_natural_net(model, batch):
    recipe = Recipe.build(parse("lbgat"))
    step = step_of(model.train(), batch, recipe)
    (natural,) = step.auxiliaries.values()
    x_adv = recipe.objective.crafted(step)["adv"]
    weights = list(model.parameters())
    passes = Passes(model, {"clean": step.x, "adv": x_adv})
    both = torch.autograd.grad(recipe.objective.loss(step, passes).mean(), weights)
    fixed = copy.deepcopy(natural)(step.x).detach()
    one = torch.autograd.grad(mean_squared_gap(model(x_adv), fixed).mean(), weights)
    torch.testing.assert_close(both, one)


def test_the_natural_net_is_another_one_and_may_be_of_another_kind(model):
    def auxiliary(text):
        recipe = Recipe.build(parse(text))
        setting = Setting(model=model, shape=SHAPE, batch_size=6, fresh=lambda: net(9))
        (made,) = recipe.auxiliaries(setting).values()
        return made

    own = auxiliary("lbgat")
    assert [p.shape for p in own.parameters()] == [p.shape for p in model.parameters()]
    assert not torch.equal(own.head.weight, model.head.weight)
    wider = auxiliary("lbgat:natural=digits-cnn:width=6")
    assert wider.head.in_features > own.head.in_features
    assert wider.head.out_features == 4
    assert wider.training
    model.low_precision = True
    assert auxiliary("lbgat6").low_precision
    with pytest.raises(UserError, match="unknown model 'resnet-81'; did you mean"):
        auxiliary("lbgat:natural=resnet-81")
