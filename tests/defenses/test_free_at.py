"""Free-AT: one gradient for images and weights, and a perturbation that is never reset."""

import copy
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from robustbench_cli.config.schema import Training
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.data import DATASETS
from robustbench_cli.defenses import Recipe, parse
from robustbench_cli.defenses._step import Setting, Step
from robustbench_cli.defenses.free_at import Carried, FreeAT
from robustbench_cli.models import MODELS, Classifier, Shape
from robustbench_cli.optim import OPTIMIZERS, SCHEDULES
from robustbench_cli.training.trainer import Trainer

EPS = 0.1
SHAPE = Shape(1, 8, 8, 4, (0.2,), (0.7,))


def aids_of(recipe, model, batch_size):
    setting = Setting(model=model, shape=SHAPE, batch_size=batch_size, fresh=lambda: model)
    return recipe.auxiliaries(setting).double()


def step_of(model, x, y, auxiliaries, norm="Linf"):
    noise = Noise(0, torch.arange(len(x)))
    threat = Threat(norm, EPS)
    return Step(
        model=model, x=x, y=y, threat=threat, noise=noise, auxiliaries=dict(auxiliaries.items())
    )


def replayed(recipe, model, x, y, auxiliaries, optimizer, norm="Linf"):
    """One batch; the losses of its updates."""
    losses = []
    for update_index in range(recipe.objective.updates_per_batch):
        optimizer.zero_grad()
        with ExitStack() as release:
            step = replace(step_of(model, x, y, auxiliaries, norm), update_index=update_index)
            losses.append(recipe.backward(step, release).loss)
            optimizer.step()
    return losses


def by_hand(model, batches, size, replays, rate):
    """Algorithm 1 with the perturbation kept in the box, with no abstraction at all."""
    delta, losses = torch.zeros(size, 1, 8, 8).double(), []
    for x, y in batches:
        for _ in range(replays):
            d = delta[: len(x)]
            image = (x + d).clamp(0, 1).requires_grad_()
            loss = F.cross_entropy(model(image), y)
            grads = torch.autograd.grad(loss, [image, *model.parameters()])
            low, high = torch.clamp(-x, min=-EPS), torch.clamp(1 - x, max=EPS)
            moved = d + EPS * grads[0].sign()
            delta[: len(x)] = torch.minimum(torch.maximum(moved, low), high)
            with torch.no_grad():
                for p, g in zip(model.parameters(), grads[1:], strict=True):
                    p -= rate * g
            losses.append(loss.detach())
    return losses, delta


def test_every_update_is_the_algorithm_s(model, batch):
    """Losses, weights, perturbation and BatchNorm over three batches, the last one shorter."""
    x, y = batch
    batches = [(x, y), (x.flip(0), y.flip(0)), (x[:4], y[:4])]
    reference, net = copy.deepcopy(model), model
    expected, delta = by_hand(reference, batches, 6, 3, 0.05)
    recipe = Recipe.build(parse("free-at:replays=3"))
    auxiliaries = aids_of(recipe, net, 6)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    losses = [
        loss for each in batches for loss in replayed(recipe, net, *each, auxiliaries, optimizer)
    ]
    torch.testing.assert_close(losses, expected)
    torch.testing.assert_close(auxiliaries["FreeAT"].delta, delta)
    torch.testing.assert_close(net.state_dict(), reference.state_dict())


def test_a_linear_model_s_perturbation_is_at_the_border_after_one_replay():
    weight = torch.randn(2, 64).double()
    head = torch.nn.Linear(64, 2, bias=False).double()
    head.weight.data = weight
    net = Classifier(torch.nn.Identity(), torch.nn.Flatten(), head)
    x, y = 0.2 + 0.6 * torch.rand(5, 1, 8, 8).double(), torch.tensor([0, 1, 0, 1, 1])
    against = torch.where(y == 0, 1, -1)[:, None] * (weight[1] - weight[0]).sign()
    for replays in (1, 4):
        recipe = Recipe.build(parse(f"free-at:replays={replays}"))
        auxiliaries = aids_of(recipe, net, 5)
        replayed(recipe, net, x, y, auxiliaries, torch.optim.SGD(net.parameters(), lr=0.0))
        torch.testing.assert_close(auxiliaries["FreeAT"].delta.flatten(1), EPS * against)


def test_one_replay_is_fgsm_with_the_batch_before_s_gradient(model, batch):
    x, y = batch
    model.eval()
    image = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(F.cross_entropy(model(image), y), image)
    stale = (x.flip(0) + ((x + EPS * slope.sign()).clamp(0, 1) - x)).clamp(0, 1)
    recipe = Recipe.build(parse("free-at:replays=1"))
    auxiliaries = aids_of(recipe, model, 6)
    still = torch.optim.SGD(model.parameters(), lr=0.0)
    (first,) = replayed(recipe, model, x, y, auxiliaries, still)
    (second,) = replayed(recipe, model, x.flip(0), y, auxiliaries, still)
    torch.testing.assert_close(first, F.cross_entropy(model(x), y).detach())
    torch.testing.assert_close(second, F.cross_entropy(model(stale), y).detach())


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_images_stay_in_the_ball_and_the_box(norm, model, batch):
    x, y = batch
    recipe = Recipe.build(parse("free-at:replays=2"))
    auxiliaries = aids_of(recipe, model, 6)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for images in (x, x.flip(0), (x > 0.5).double()):
        replayed(recipe, model, images, y, auxiliaries, optimizer, norm)
        step = step_of(model, images, y, auxiliaries, norm)
        assert step.threat.inside(images + auxiliaries["FreeAT"].delta, images).all()
        crafted = recipe.objective.crafted(replace(step, x=x))["adv"].detach()
        assert step.threat.inside(crafted, x).all()
        assert not torch.equal(crafted, x)


def test_an_epoch_updates_replays_times_and_hands_the_perturbation_on():
    """Of 70 images in batches of 32 the last six move the first six places only."""
    dataset = DATASETS.build(Spec("digits"))
    net = MODELS.build(Spec("digits-cnn", {"width": 4})).build(Shape(1, 8, 8, 10, (0.0,), (1.0,)))
    deltas, updates = [], []

    class Watched(FreeAT):
        def crafted(self, step):
            deltas.append(
                (step.update_index, len(step.x), step.auxiliary(self, Carried).delta.clone())
            )
            return super().crafted(step)

        def after_optimizer_step(self, step):
            updates.append(step.auxiliary(self, Carried).delta.clone())

    recipe = Recipe(Watched(replays=3))
    trainer = Trainer(
        model=net,
        recipe=recipe,
        optimizer=OPTIMIZERS.build(Spec("adam")).build(net, 0.01),
        schedule=SCHEDULES.build(Spec("constant")),
        threat=Threat("Linf", 0.15),
        options=Training(epochs=2, batch_size=32, lr=0.01, probe=0),
        dataset=dataset,
        data=dataset.load("train", Path()).only(slice(70)),
        auxiliaries=aids_of(recipe, net, 32).float(),
    )
    trainer.epoch(0)
    trainer.epoch(1)
    assert [update_index for update_index, _, _ in deltas] == [0, 1, 2] * 6
    assert [size for _, size, _ in deltas[::3]] == [32, 32, 6] * 2
    assert len(updates) == 18
    assert not deltas[0][2].any()
    # What an update sees is what the one before left, across batches and epochs.
    for (_, _, seen), left in zip(deltas[1:], updates, strict=False):
        assert torch.equal(seen, left)
    assert torch.equal(updates[8][6:], updates[5][6:])
    assert not torch.equal(updates[8][:6], updates[5][:6])


@pytest.mark.parametrize("other", ["awp:warmup=0", "sam"])
def test_what_takes_the_gradient_at_other_weights_is_refused(other):
    name = other.partition(":")[0]
    with pytest.raises(UserError, match=rf"free-at takes .* from one pass.*write pgd-at\+{name}"):
        Recipe.build(parse(f"free-at+{other}")).check(10)
    Recipe.build(parse("free-at+label-smoothing+he")).check(10)
