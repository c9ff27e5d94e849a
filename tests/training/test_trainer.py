"""The training loop: what each batch gets, and what an epoch reports."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from robustbench_cli.commands.parent_runs import without_labels
from robustbench_cli.config.schema import Training
from robustbench_cli.core.errors import RunError
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.data import DATASETS
from robustbench_cli.data.pool import Pool
from robustbench_cli.defenses import Objective, Recipe, parse
from robustbench_cli.defenses._step import Setting
from robustbench_cli.distributed.group import Shard
from robustbench_cli.models import MODELS, Shape
from robustbench_cli.optim import OPTIMIZERS, SCHEDULES
from robustbench_cli.training import checkpoint
from robustbench_cli.training.measure import accuracies
from robustbench_cli.training.trainer import Trainer


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

    class Recording(Recipe):
        def backward(self, step, release):
            steps.append((step, loop.optimizer.param_groups[0]["lr"]))
            return super().backward(step, release)

    loop.recipe = Recording(loop.recipe.objective, loop.recipe.modifiers)
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


def test_cpu_time_is_that_of_all_processes():
    class First(Shard):
        """The first of two processes, whose other one worked for an hour."""

        def all_gather(self, value):
            return [value, 3600.0]

    alone, shared = (trainer(probe=0) for _ in range(2))
    shared.shard = First()
    assert 0 < alone.epoch(0)["cpu_seconds"] < 3600 < shared.epoch(0)["cpu_seconds"]


def test_images_belong_to_their_ids_and_lie_in_the_box():
    loop = trainer()
    for step, _ in seen(loop, 0):
        assert torch.equal(step.x, loop.data.images(step.noise.ids))
        assert torch.equal(step.y, loop.data.y[step.noise.ids])
        assert step.x.min() >= 0
        assert step.x.max() <= 1


def test_a_step_knows_the_share_of_the_run_that_is_done():
    loop = trainer()
    found = [step.progress for epoch in range(4) for step, _ in seen(replace(loop), epoch)]
    assert found == pytest.approx([i / 16 for i in range(16)])


def test_the_rate_follows_the_schedule_per_iteration():
    loop = trainer()
    rates = [rate for epoch in range(4) for _, rate in seen(replace(loop), epoch)]
    expected = [0.01 * loop.schedule(i / 16) for i in range(16)]
    assert rates == pytest.approx(expected)
    assert rates[0] == 0
    assert max(rates) == rates[8] == 0.01


def test_a_rate_per_epoch_is_the_one_where_it_begins():
    """Carmon et al.: 0.5 lr (1 + cos(pi (e - 1) / E)) throughout epoch e of E."""
    loop = replace(trainer(), schedule=SCHEDULES.build(Spec("cosine", {"per": "epoch"})))
    rates = [[rate for _, rate in seen(replace(loop), epoch)] for epoch in range(4)]
    expected = [[0.01 * 0.5 * (1 + math.cos(math.pi * e / 4))] * 4 for e in range(4)]
    assert rates == [pytest.approx(each) for each in expected]


def test_a_warm_up_rises_with_every_iteration_whatever_the_rate_is_per():
    """By epochs a warm-up of one epoch would be an epoch at a rate of zero, and no rise."""
    rise = [i / 8 for i in range(8)]
    for per, drop in (("iteration", 10), ("epoch", 12)):  # 0.6 of 16 batches, and of 4 epochs
        params = {"warmup": 0.5, "per": per, "milestones": [0.6], "gamma": 0.1}
        loop = replace(trainer(), schedule=SCHEDULES.build(Spec("piecewise", params)))
        rates = [rate for epoch in range(4) for _, rate in seen(replace(loop), epoch)]
        factors = [*rise, *[1.0] * (drop - 8), *[0.1] * (16 - drop)]
        assert rates == pytest.approx([0.01 * factor for factor in factors])


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


@pytest.mark.parametrize(
    ("tensor", "value"), [("bias", math.nan), ("bias", -math.inf), ("running_var", math.inf)]
)
def test_a_weight_that_no_measurement_sees_ends_the_run(tensor, value):
    """The logits stay finite: behind a ReLU, and divided by an infinite variance, it is a zero."""
    loop = trainer("standard", probe=0)
    ruined = getattr(loop.model.body.bn3, tensor)

    class Ruinous(Recipe):
        def after_optimizer_step(self, step):
            if step.epoch == 1 and step.batch == 3:  # the last of the epoch
                ruined.data[0] = value

    loop.epoch(0)
    loop.recipe = Ruinous(loop.recipe.objective)
    with pytest.raises(RunError, match="weights or logits are not finite after epoch 2; the last"):
        loop.epoch(1)


def test_a_mask_of_minus_infinity_is_no_ruined_weight():
    loop = trainer("standard", probe=0)
    loop.model.register_buffer("mask", torch.tensor([0.0, -math.inf]))
    assert loop.epoch(0)["epoch"] == 1


def test_bf16_trains_and_logits_come_back_in_float32():
    loop = trainer("trades:steps=2+awp:warmup=0+he")
    loop.model = loop.recipe.prepare(loop.model)
    loop.model.low_precision = True
    loop.optimizer = OPTIMIZERS.build(Spec("adam")).build(loop.model, 0.01)
    assert loop.model(torch.rand(4, 1, 8, 8)).dtype == torch.float32
    first, second = loop.epoch(0)["loss"], loop.epoch(1)["loss"]
    assert second < first
    assert all(p.dtype == torch.float32 for p in loop.model.parameters())


@dataclass(frozen=True, kw_only=True)
class Leaning(Objective):
    """Clean training whose logits a second, smaller net corrects: it learns at its own rate."""

    updates_per_batch = 2

    def auxiliary(self, setting):
        return torch.nn.Linear(setting.shape.channels * 64, setting.shape.classes)

    def groups(self, auxiliary):
        return [{"params": list(auxiliary.parameters()), "peak": 0.5}]

    def loss(self, step, logits):
        more = step.auxiliary(self, torch.nn.Linear)(step.x.flatten(1))
        return step.criterion(logits["clean"] + more, step.y)


def leaning():
    loop = trainer()
    loop.recipe = Recipe(Leaning())
    torch.manual_seed(1)
    setting = Setting(
        model=loop.model,
        shape=Shape(1, 8, 8, 10, (0.0,), (1.0,)),
        batch_size=32,
        fresh=lambda: loop.model,
    )
    loop.auxiliaries = loop.recipe.auxiliaries(setting)
    optimizer = OPTIMIZERS.build(Spec("adam"))
    loop.optimizer = optimizer.build(loop.model, 0.01, loop.recipe.groups(loop.auxiliaries))
    return loop


def test_what_a_defense_owns_learns_at_its_own_rate_and_resumes_bit_for_bit(tmp_path):
    loop = leaning()
    before = {k: v.clone() for k, v in loop.auxiliaries.state_dict().items()}
    loop.epoch(0)
    rates = [group["lr"] for group in loop.optimizer.param_groups]
    assert rates[1] == pytest.approx(50 * rates[0])
    assert not torch.equal(
        before["Leaning.weight"], loop.auxiliaries.state_dict()["Leaning.weight"]
    )
    state = checkpoint.training_state(loop.model, loop.optimizer, loop.auxiliaries)
    checkpoint.save_tensors(tmp_path / "s.safetensors", state, {})
    loop.epoch(1)

    again = leaning()
    tensors, _ = checkpoint.load_tensors(tmp_path / "s.safetensors")
    checkpoint.restore_training(tensors, again.model, again.optimizer, again.auxiliaries)
    again.epoch(1)
    for module, other in ((loop.model, again.model), (loop.auxiliaries, again.auxiliaries)):
        torch.testing.assert_close(module.state_dict(), other.state_dict(), rtol=0, atol=0)


def test_every_turn_is_an_update_and_the_rate_moves_between_them():
    steps = seen(leaning(), 0)
    assert [step.update_index for step, _ in steps] == [0, 1] * 4
    assert torch.equal(steps[0][0].x, steps[1][0].x)
    schedule = trainer().schedule
    assert [rate for _, rate in steps] == pytest.approx([0.01 * schedule(i / 32) for i in range(8)])


def pooled(share):
    loop = trainer()
    data = DATASETS.build(Spec("digits")).load("test", Path()).only(slice(50))
    return replace(loop, pool=Pool(data=without_labels(data), share=share, first=129))


def test_a_pool_fills_every_batch_up_and_is_drawn_anew():
    loop = pooled(0.75)
    steps = [step for step, _ in seen(loop, 0)]
    assert len(steps) == 17  # 129 labelled examples, eight a batch
    assert all(len(step.x) == 32 for step in steps)
    assert [int(step.extra.sum()) for step in steps] == [24] * 16 + [31]
    labelled = torch.cat([step.noise.ids[~step.extra] for step in steps])
    assert sorted(labelled.tolist()) == list(range(129))
    for step in steps:
        rows = step.noise.ids[step.extra] - 129
        assert torch.equal(step.x[step.extra], loop.pool.data.images(rows))
        assert (step.y[step.extra] == -100).all()
    drawn = [step.noise.ids[step.extra].tolist() for step in steps]
    assert len({tuple(ids) for ids in drawn}) == len(drawn)
    again = [step.noise.ids[step.extra].tolist() for step, _ in seen(pooled(0.75), 0)]
    assert drawn == again


@pytest.mark.parametrize("text", ["tla:steps=1,bank=20", "mter:steps=2,step=1/2", "vat"])
def test_a_pool_alone_leaves_the_labelled_images_no_part(text):
    """Other ones, with other labels, give the same weights bit for bit."""
    own, extra = (DATASETS.build(Spec("digits")).load(s, Path()) for s in ("train", "test"))
    pool = Pool(data=extra.only(slice(50)), share=1.0, first=129)
    weights, rows = [], []
    for data in (own.only(slice(129)), own.only(slice(700, 829))):
        loop = replace(trainer(text, probe=10), data=data, pool=pool)
        loop.held_out = own.only(slice(900, 910))
        steps = [step for step, _ in seen(loop, 0)]
        assert [len(step.x) for step in steps] == [32] * 5  # 129 images would fill as many
        assert all(step.extra is None for step in steps)  # all alike: vat scores their labels
        ids = torch.cat([step.noise.ids for step in steps]) - 129
        assert torch.equal(torch.cat([step.x for step in steps]), pool.data.images(ids))
        assert torch.equal(torch.cat([step.y for step in steps]), pool.data.y[ids])
        weights.append({key: value.clone() for key, value in loop.model.state_dict().items()})
        rows.append(loop.epoch(1))
        # Progress is measured on the labelled images, as ever.
        measured = accuracies(loop.model, data.only(slice(10)), loop.threat, seed=0)
        assert (rows[-1]["train_clean"], rows[-1]["train_robust"]) == measured
    torch.testing.assert_close(*weights, rtol=0, atol=0)
    assert rows[0]["loss"] == rows[1]["loss"]
    assert rows[0]["val_clean"] == rows[1]["val_clean"]


def test_what_has_no_label_counts_in_no_accuracy():
    loop = pooled(0.5)
    loop.recipe = Recipe.build(parse("standard"))
    for epoch in range(4):
        row = loop.epoch(epoch)
    assert row["batch_clean"] > 0.6  # of the labelled half: of all it could not pass one half
