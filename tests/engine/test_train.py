"""The training loop: what each batch gets, and what an epoch reports."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from robustbench_cli.config import Training
from robustbench_cli.data import DATASETS
from robustbench_cli.defenses import Recipe, parse
from robustbench_cli.engine.train import Trainer, accuracies
from robustbench_cli.models import MODELS, Shape
from robustbench_cli.optim import OPTIMIZERS, SCHEDULES
from robustbench_cli.registry import Spec
from robustbench_cli.threat import Threat


def trainer(text="pgd-at:steps=2", **options):
    torch.manual_seed(0)
    dataset = DATASETS.build(Spec("digits"))
    net = MODELS.build(Spec("digits-cnn", {"width": 4})).build(Shape(1, 8, 8, 10, (0.0,), (1.0,)))
    options = {"epochs": 4, "batch_size": 32, "lr": 0.01, "probe": 40} | options
    return Trainer(
        model=net,
        recipe=Recipe.build(parse(text)),
        optimizer=OPTIMIZERS.build(Spec("adam")).build(net, 0.01),
        schedule=SCHEDULES.build(Spec("cyclic")),
        threat=Threat("Linf", 0.15),
        options=Training(**options),
        dataset=dataset,
        data=dataset.load("train", Path()).only(slice(129)),
    )


def seen(loop, epoch):
    """The steps of an epoch, recorded at the recipe's door."""
    steps = []
    inner = loop.recipe.backward

    class Recording:
        def backward(self, step, release):
            steps.append((step, loop.optimizer.param_groups[0]["lr"]))
            return inner(step, release)

    loop.recipe = Recording()
    loop.epoch(epoch)
    return steps


def test_every_example_once_in_an_order_that_follows_the_seed_and_the_epoch():
    ids = {}
    for key, seed, epoch in (("a", 0, 0), ("again", 0, 0), ("epoch", 0, 1), ("seed", 1, 0)):
        steps = seen(replace(trainer(), seed=seed), epoch)
        ids[key] = torch.cat([step.noise.ids for step, _ in steps])
        assert [len(step.x) for step, _ in steps] == [32] * 4  # the 129th alone has no statistics
    assert torch.equal(ids["a"], ids["again"])
    assert not torch.equal(ids["a"], ids["epoch"])
    assert not torch.equal(ids["a"], ids["seed"])
    assert len(ids["a"].unique()) == 128


def test_images_belong_to_their_ids_and_lie_in_the_box():
    loop = trainer()
    for step, _ in seen(loop, 0):
        assert torch.equal(step.x, loop.data.images(step.noise.ids))
        assert torch.equal(step.y, loop.data.y[step.noise.ids])
        assert step.x.min() >= 0
        assert step.x.max() <= 1


def test_the_rate_follows_the_schedule_per_iteration():
    loop = trainer()
    rates = [rate for epoch in range(4) for _, rate in seen(replace(loop), epoch)]
    expected = [0.01 * loop.schedule(i / 16) for i in range(16)]
    assert rates == pytest.approx(expected)
    assert rates[0] == 0
    assert max(rates) == rates[8] == 0.01


def test_the_radius_grows_over_the_warm_up():
    loop = trainer(eps_warmup=0.5)
    radii = [step.threat.eps for epoch in range(4) for step, _ in seen(replace(loop), epoch)]
    assert radii[:8] == pytest.approx([0.15 * max(i / 8, 1e-3) for i in range(8)])
    assert radii[8:] == [0.15] * 8


def test_an_epoch_reports_what_the_objective_saw():
    loop = trainer("trades:steps=1")
    row = loop.epoch(0)
    assert row["epoch"] == 1
    assert 0 <= row["batch_adv"] <= 1
    assert 0 <= row["batch_clean"] <= 1
    assert row["train_clean"] is not None
    assert row["val_clean"] is None
    assert trainer("standard").epoch(0)["batch_adv"] is None
    assert trainer(probe=0).epoch(0)["train_robust"] is None


def test_measuring_changes_nothing(digits_model):
    model, *_ = digits_model
    data = DATASETS.build(Spec("digits")).load("test", Path()).only(slice(60))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    clean, robust = accuracies(model, data, Threat("Linf", 0.1), seed=0)
    whole = accuracies(model, data, Threat("Linf", 0.1), seed=0, batch_size=7)
    assert (clean, robust) == whole
    assert 0 <= robust < clean <= 1
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_bf16_trains_and_logits_come_back_in_float32():
    loop = trainer("trades:steps=2+awp:warmup=0+he")
    loop.model = loop.recipe.prepare(loop.model)
    loop.model.low_precision = True
    loop.optimizer = OPTIMIZERS.build(Spec("adam")).build(loop.model, 0.01)
    assert loop.model(torch.rand(4, 1, 8, 8)).dtype == torch.float32
    first, second = loop.epoch(0)["loss"], loop.epoch(1)["loss"]
    assert second < first
    assert all(p.dtype == torch.float32 for p in loop.model.parameters())
