"""The contract of every registered defense, alone and composed with others."""

import copy
from contextlib import ExitStack
from dataclasses import replace

import pytest
import torch

from robustbench_cli.core import gradient_ascent
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.losses import cross_entropy, kl
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.data import Split
from robustbench_cli.data.bank import Bank
from robustbench_cli.defenses import DEFENSES, Adversarial, Modifier, Objective, Recipe, parse
from robustbench_cli.defenses._step import Setting, Step
from robustbench_cli.models import Shape

OBJECTIVES = [n for n in DEFENSES.names() if issubclass(DEFENSES.entry(n).cls, Objective)]
ATTACKING = [n for n in OBJECTIVES if issubclass(DEFENSES.entry(n).cls, Adversarial)]
NEAREST = {"smooth-adv-ddn"}
"""Those that leave images alone which are misclassified already: see their own tests."""
MODIFIERS = [n for n in DEFENSES.names() if issubclass(DEFENSES.entry(n).cls, Modifier)]
RECIPES = OBJECTIVES + [f"pgd-at+{m}" for m in MODIFIERS] + ["trades+awp+he", "mart+ls+awp"]

MODES = {
    "ard": "train",
    "iad": "train",
    "pgd-at": "train",  # PORT's
    "rslad": "eval",
    "bgat": "eval",
    "lbgat": "eval",
    "lbgat-alp": "eval",
    "lbgat-trades": "eval",
    "tla": "eval",
    "mter": "eval",
    "pcl": "eval",
}
"""The mode in which published codes attack; of bgat, lbgat and lbgat-alp only recalled."""

WALKS = {
    "ard": ("uniform", 10, 1 / 4),
    "iad": ("uniform", 10, 1 / 4),
    "pgd-at": ("uniform", 10, 1 / 4),
    "rslad": ("gauss", 10, 1 / 4),
    "bgat": ("uniform", 10, 7 / 31),
    "lbgat": ("uniform", 10, 7 / 31),
    "lbgat-alp": ("uniform", 10, 7 / 31),
    "lbgat-trades": ("gauss", 10, 7 / 31),
    "tla": ("uniform", 7, 1 / 4),
    "mter": ("clean", 50, 1 / 50),
}
"""Start, steps and step of their attacks: 2/255 at 8/255, 0.007 at 0.031, 1/255 at 50/255."""


def step_of(model, batch, norm="Linf", epoch=1000):
    x, y = batch
    noise = Noise(0, torch.arange(len(x)))
    return Step(
        model=model,
        x=x,
        y=y,
        classes=4,
        threat=Threat(norm, 0.1),
        noise=noise,
        epoch=epoch,
        teachers=(frozen(model), frozen(model)),
        bank=Bank(Split((x * 255).byte(), y, tuple("abcd"))),
    )


def frozen(model):
    """Return a teacher with the network's current weights."""
    return copy.deepcopy(model).eval().requires_grad_(False)


def one_step(recipe, net, step, optimizer=None):
    shape = Shape(*step.x.shape[1:], 4, (0.2,), (0.7,))
    setting = Setting(
        model=net, shape=shape, batch_size=len(step.x), fresh=lambda: copy.deepcopy(net)
    )
    step = replace(step, auxiliaries=dict(recipe.auxiliaries(setting).items()))
    with ExitStack() as moved:
        trained = recipe.backward(step, moved)
        if optimizer:
            optimizer.step()
    return trained


@pytest.mark.parametrize("text", RECIPES)
@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_a_step_trains_every_weight_and_gives_the_model_back(text, norm, network, batch):
    recipe = Recipe.build(parse(text))
    net = network(recipe).train()
    before = copy.deepcopy(list(net.parameters()))
    x_before = batch[0].clone()
    trained = one_step(recipe, net, step_of(net, batch, norm))
    assert torch.isfinite(trained.loss)
    assert net.training
    assert all(m.training for m in net.modules())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())
    assert set(trained.correct) <= {"clean", "adv"}
    assert torch.equal(batch[0], x_before)  # no attack may write into the clean batch
    torch.testing.assert_close(list(net.parameters()), before, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", sorted({*ATTACKING} - NEAREST))
@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_inner_attacks_stay_inside_and_climb(name, norm, model, batch, monkeypatch):
    """Its own loss rises; every inner loss is a divergence from the clean prediction or the label.

    Which of the two is the member's own affair: what it handed to the ascent is what must rise.
    """
    climbed = []

    def recording(net, loss, target, x_adv, *rest):
        end = iterate(net, loss, target, x_adv, *rest)
        with torch.no_grad():
            climbed.append([float(loss(net(x), target).sum()) for x in (x_adv, end)])
        return end

    iterate = gradient_ascent.iterate
    monkeypatch.setattr(gradient_ascent, "iterate", recording)
    objective = DEFENSES.build(Spec(name))
    step = step_of(model.eval(), batch, norm)
    x_adv = objective.crafted(step)["adv"]
    balls = objective.threats(step.threat) if hasattr(objective, "threats") else [step.threat]
    assert torch.stack([ball.inside(x_adv, step.x) for ball in balls]).any(0).all()
    assert not x_adv.requires_grad
    assert not torch.equal(x_adv, step.x)
    assert climbed  # it attacks with the one ascent loop
    for start, end in climbed:
        assert end > start
    clean, adversarial = model(step.x).detach(), model(x_adv).detach()
    rise = cross_entropy(adversarial, step.y) - cross_entropy(clean, step.y)
    away = kl(adversarial, clean) - kl(
        model(objective.climb.begin(step.x, step.threat, step.noise)).detach(), clean
    )
    assert max(rise.sum(), away.sum()) > 0


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_inner_attack_s_batchnorm_is_what_the_method_says(name, network, batch, monkeypatch):
    """eval and frozen leave the running statistics alone; train lets every pass in."""
    objective = DEFENSES.build(Spec(name))
    net = network(Recipe(objective)).train()
    norm = next((m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)), None)
    if norm is None:  # it trains no net that has any, and says so before training
        with_norm = network(Recipe(DEFENSES.build(Spec("standard")))).train()
        with pytest.raises(UserError, match="BatchNorm2d in training mode"):
            one_step(Recipe(objective), with_norm, step_of(with_norm, batch))
        return
    counted = []

    def counting(step):
        before = int(norm.num_batches_tracked)
        found = crafted(step)
        counted.append(int(norm.num_batches_tracked) - before)
        return found

    def scoring(step, logits):
        passes.append(logits.made)
        return loss(step, logits)

    crafted, loss, passes = objective.crafted, objective.loss, []
    monkeypatch.setattr(type(objective), "crafted", lambda _, step: counting(step))
    monkeypatch.setattr(type(objective), "loss", lambda _, *given: scoring(*given))
    before = int(norm.num_batches_tracked)
    trained = one_step(Recipe(objective), net, step_of(net, batch))
    inner = {"eval": 0, "frozen": 0, "train": getattr(objective, "steps", 0)}
    assert counted == [inner[objective.attack_mode]]
    # Each pass that is scored is one batch for BatchNorm; of others a method may leave some out.
    outer = int(norm.num_batches_tracked) - before - counted[0]
    assert max(1, len(trained.correct)) <= outer <= len(passes[0])


@pytest.mark.parametrize("name", MODES)
def test_the_inner_attack_is_the_published_one(name):
    objective = DEFENSES.build(Spec(name))
    assert objective.attack_mode == MODES[name]
    if name in WALKS:
        climb = objective.climb
        assert (climb.start, climb.steps, climb.step) == WALKS[name]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_mixed_labels_are_understood_or_refused(name, network, batch):
    """An objective that needs one label per image says so: ``one_label``."""
    recipe = Recipe.build(parse(f"{name}+mixup"))
    if recipe.objective.one_label:
        with pytest.raises(UserError, match="needs one label per image"):
            recipe.check(1000)
        return
    recipe.check(1000)
    net = network(recipe).train()
    step = step_of(net, batch)
    assert torch.isfinite(one_step(recipe, net, step).loss)
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())


def test_order_of_modifiers_does_not_change_the_gradient(model, batch):
    gradients = []
    for text in ("trades+awp+he", "trades+he+awp", "he+awp+trades"):
        recipe = Recipe.build(parse(text))
        torch.manual_seed(1)
        net = recipe.prepare(copy.deepcopy(model)).train()
        one_step(recipe, net, step_of(net, batch))
        gradients.append([p.grad for p in net.parameters()])
    torch.testing.assert_close(gradients[0], gradients[1])
    torch.testing.assert_close(gradients[0], gradients[2])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("awp+he", r"exactly one objective, 'awp\+he' has 0 \(objectives: ablation-training, "),
        ("pgd-at+trades", r"exactly one objective, 'pgd-at\+trades' has 2 \("),
        ("lbgat+trades:beta=1+awp", r"\+awp' has 2; lbgat-trades is both in one \(objectives"),
        ("alp+lbgat", "has 2; lbgat-alp is both in one"),
        ("trades+awp+awp", "'awp' is given twice"),
        ("tradse", "did you mean 'trades'"),
        ("trades:btea=6", "no parameter 'btea'; did you mean 'beta'"),
        ("trades:steps=ten", "'steps'.*integer.*'ten'"),
    ],
)
def test_mistakes_are_named(text, message):
    with pytest.raises(UserError, match=message) as caught:
        Recipe.build(parse(text))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "epochs", "message"),
    [
        ("trades:start=clean", 10, "zero KL gradient"),
        ("trades+awp", 5, "awp would never act"),
    ],
)
def test_combinations_that_make_no_sense_are_refused_with_the_reason(text, epochs, message):
    with pytest.raises(UserError, match=message):
        Recipe.build(parse(text)).check(epochs)


def test_two_heads_are_refused(model):
    recipe = Recipe.build(parse("trades+he"))
    with pytest.raises(UserError, match="linear last layer"):
        recipe.prepare(recipe.prepare(model))


def test_awp_s_defaults_follow_the_objective():
    at, trades, typed = (
        Recipe.build(parse(t)).modifiers[0]
        for t in ("pgd-at+awp", "trades+awp", "trades+awp:gamma=0.02,warmup=0")
    )
    assert (at.gamma, at.warmup) == (0.01, 0)
    assert (trades.gamma, trades.warmup) == (0.005, 9)  # the official 10 counts from one
    assert (typed.gamma, typed.warmup) == (0.02, 0)
