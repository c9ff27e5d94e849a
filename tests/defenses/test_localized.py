"""Training under a mask: every inner attack respects it; ``localized`` has a mask of its own."""

import copy
from contextlib import ExitStack
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Masked, Threat
from robustbench_cli.data import Split
from robustbench_cli.data.bank import Bank
from robustbench_cli.defenses import DEFENSES, Adversarial, Recipe, parse
from robustbench_cli.defenses._step import Setting, Step
from robustbench_cli.defenses.pgd_at import PGDAT
from robustbench_cli.masks import MaskContext, bind_to_images
from robustbench_cli.models import Shape

ATTACKING = [n for n in DEFENSES.names() if issubclass(DEFENSES.entry(n).cls, Adversarial)]


@pytest.fixture
def step(model, batch):
    """Return a step under a threat that may change the middle sixteen pixels only."""
    x, y = batch
    teachers = tuple(copy.deepcopy(model).eval().requires_grad_(False) for _ in range(2))
    return Step(
        model=model,
        x=x,
        y=y,
        classes=4,
        threat=Threat("L2", 0.5, "box:share=0.5"),
        noise=Noise(0, torch.arange(6)),
        epoch=1000,
        teachers=teachers,
        bank=Bank(Split((x * 255).byte(), y, tuple("abcd"))),
    )


def middle(x):
    """Return the images with their middle pixels set to zero."""
    x = x.clone()
    x[:, :, 2:6, 2:6] = 0
    return x


def one_step(text, step):
    """Return the loss and the gradients of one update."""
    recipe = Recipe.build(parse(text))
    net = recipe.prepare(copy.deepcopy(step.model)).train()
    shape = Shape(1, 8, 8, 4, (0.2,), (0.7,))
    auxiliaries = recipe.auxiliaries(
        Setting(model=net, shape=shape, batch_size=6, fresh=lambda: copy.deepcopy(net))
    )
    with ExitStack() as moved:
        trained = recipe.backward(
            replace(step, model=net, auxiliaries=dict(auxiliaries.items())), moved
        )
    return trained.loss, [p.grad for p in net.parameters()]


UNMASKED = ["smooth-adv-ddn"]
"""Those whose inner attack has no way to keep to some pixels: under a mask they are refused."""


@pytest.mark.parametrize("name", UNMASKED)
def test_what_cannot_keep_to_a_mask_is_refused_under_one(name, step):
    threat = bind_to_images(step.threat, MaskContext(model=step.model, x=step.x, y=step.y))
    with pytest.raises(UserError, match="which no mask restricts: leave --mask box"):
        DEFENSES.build(Spec(name)).crafted(replace(step, threat=threat))


@pytest.mark.parametrize("name", [*(n for n in ATTACKING if n not in UNMASKED), "free-at"])
def test_every_inner_attack_keeps_to_the_mask(name, step):
    objective = DEFENSES.build(Spec(name))
    setting = Setting(
        model=step.model, shape=Shape(1, 8, 8, 4, (0.2,), (0.7,)), batch_size=6, fresh=lambda: None
    )
    auxiliaries = dict(Recipe(objective).auxiliaries(setting).items()) if name == "free-at" else {}
    for carried in auxiliaries.values():
        carried.delta.normal_()  # what an earlier batch left anywhere
    threat = bind_to_images(step.threat, MaskContext(model=step.model, x=step.x, y=step.y))
    adv = objective.crafted(replace(step, threat=threat, auxiliaries=auxiliaries))["adv"]
    assert torch.equal(middle(adv.detach()), middle(step.x))
    assert not torch.equal(adv, step.x)


def test_an_objective_is_given_the_threat_to_its_images_as_they_are_trained_on(step):
    """After mixup, cutout and the like: what is dark then is background then."""
    seen = []

    class Witness(PGDAT):
        def perturb(self, step):
            seen.append(step)
            return super().perturb(step)

    cutout = DEFENSES.build(Spec("cutout", {"length": 4}))
    model = step.model.train()
    with ExitStack() as moved:
        shaded = replace(step, threat=Threat("Linf", 0.1, "threshold:above=0"))
        Recipe(Witness(steps=1, step=1.0), (cutout,)).backward(shaded, moved)
    (met,) = seen
    assert isinstance(met.threat, Masked)
    assert not torch.equal(met.x, step.x)
    assert torch.equal(met.threat.free, met.x == 0)
    assert met.threat.free.any()
    assert model.training


@pytest.mark.parametrize("text", ["pgd-at", "trades+awp", "feature-scatter"])
def test_a_mask_that_frees_everything_changes_no_bit(text, step):
    whole = one_step(text, replace(step, threat=Threat("Linf", 0.1)))
    masked = one_step(text, replace(step, threat=Threat("Linf", 0.1, "box:share=1")))
    closed = one_step(text, replace(step, threat=Threat("Linf", 0.1, "border:width=0")))
    torch.testing.assert_close(masked, whole, rtol=0, atol=0)
    assert not torch.equal(closed[0], whole[0])


def test_localized_is_half_clean_half_attacked_in_the_background(model, batch):
    """Written out: sign steps of eps/4 from the clean image on pixels up to the threshold."""
    x, y = batch
    model.eval()
    dark = x <= 0.3
    adv = x.clone()
    for _ in range(10):
        leaf = adv.clone().requires_grad_()
        (grad,) = torch.autograd.grad(F.cross_entropy(model(leaf), y, reduction="sum"), leaf)
        adv = torch.where(dark, adv + 0.025 * grad.sign(), x)
        adv = torch.minimum(torch.maximum(adv, x - 0.1), x + 0.1).clamp(0, 1)
    net = copy.deepcopy(model).train()
    loss = (F.cross_entropy(net(x), y) + F.cross_entropy(net(adv), y)) / 2
    step = Step(
        model=model.train(),
        x=x,
        y=y,
        classes=4,
        threat=Threat("Linf", 0.1),
        noise=Noise(0, torch.arange(6)),
    )
    objective = DEFENSES.build(Spec("localized", {"mask": "threshold:above=0.3", "start": "clean"}))
    with ExitStack() as moved:
        trained = Recipe(objective).backward(step, moved)
    torch.testing.assert_close(trained.loss, loss.detach(), rtol=0, atol=1e-12)
    assert set(trained.correct) == {"clean", "adv"}


def test_localized_keeps_to_both_masks_where_the_threat_has_one_too(step):
    dark = bind_to_images(step.threat, MaskContext(model=step.model, x=step.x, y=step.y))
    objective = DEFENSES.build(Spec("localized", {"mask": "threshold:above=0.5"}))
    adv = objective.perturb(replace(step, threat=dark))
    changed = adv != step.x
    assert changed.any()
    assert not changed[step.x > 0.5].any()
    assert torch.equal(middle(adv), middle(step.x))


@pytest.mark.parametrize(
    ("mask", "message"),
    [("treshold", "did you mean 'threshold'"), ("", "trains under a mask")],
)
def test_a_mistake_in_its_mask_is_named(mask, message):
    with pytest.raises(UserError, match=message):
        DEFENSES.build(Spec("localized", {"mask": mask}))


def test_what_moves_images_by_the_ball_s_size_alone_takes_no_mask(step):
    """Virtual adversarial training would ignore it."""
    with pytest.raises(UserError, match="by the size of the ball alone"):
        one_step("vat", step)
