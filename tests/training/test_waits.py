"""On a device: no training step waits for it, and none mixes its tensors with those of the CPU.

The device is a pretended one (``tests/plugins/pretend_device.py``), so no GPU is needed.
"""

from dataclasses import dataclass, fields, replace
from pathlib import Path

import pytest
import torch
from pretend_device import PRETENDED, module_on_device, on_device, pretended_device, waits
from torch import Tensor

from robustbench_cli.config.schema import Embedding, Training
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.data import DATASETS, UNLABELLED
from robustbench_cli.data.pool import Pool
from robustbench_cli.data.stored import ImageSource, StoredImages
from robustbench_cli.defenses import DEFENSES, Objective, Recipe, parse
from robustbench_cli.defenses._step import Setting
from robustbench_cli.metric_learning import METRIC_DEFENSES
from robustbench_cli.metric_learning._embedder import build_embedder
from robustbench_cli.models import MODELS, Shape
from robustbench_cli.optim import OPTIMIZERS, SCHEDULES
from robustbench_cli.training.metric_trainer import MetricTrainer
from robustbench_cli.training.trainer import Trainer

SHAPE = Shape(1, 8, 8, 10, (0.3,), (0.4,))
STEPS = ("Trainer._assemble", "Trainer._update")
"""The functions that make a batch and train on it: what waits in them waits at each batch."""

ALLOWED = {
    # It stops when its plan is right, after about ten of 50 iterations, each of which solves a
    # linear system; torch's solver waits, too, to see whether there is a solution.
    "feature-scatter": {"defenses/_transport.py:sinkhorn"},
    # The number of images from the pool, once per batch: the labelled ones and these go through the
    # network apart, because BatchNorm's statistics are to follow the labelled ones alone.
    "vat": {"defenses/vat.py:_parted"},
}
"""The functions in which a defense may wait at each batch, and why."""

OBJECTIVES = [n for n in DEFENSES.names() if issubclass(DEFENSES.entry(n).cls, Objective)]
MODIFIERS = [n for n in DEFENSES.names() if n not in OBJECTIVES]
SHORT = {"steps": 2, "step": 0.5, "replays": 2}
"""Small values of the parameters that a batch's cost depends on."""


def short(name):
    known = {each.name: each.default for each in fields(DEFENSES.entry(name).cls)}
    few = {key: value for key, value in SHORT.items() if key in known}
    return f"{name}:" + ",".join(f"{k}={v}" for k, v in few.items()) if few else name


RECIPES = {name: short(name) for name in OBJECTIVES}
RECIPES |= {name: f"{short('pgd-at')}+{name}" for name in MODIFIERS}


def there(split):
    """The split on the device."""
    rows = {} if split.own_ids is None else {"own_ids": on_device(split.own_ids)}
    return replace(split, stored=on_device(split.stored), y=on_device(split.y), **rows)


@pytest.fixture(scope="module")
def digits():
    dataset = DATASETS.build(Spec("digits", {"augment": "crop-flip", "rotate": 10}))
    return dataset, *(dataset.load(split, Path()) for split in ("train", "test"))


def trainer_of(text, digits):
    dataset, train, test = digits
    recipe = Recipe.build(parse(text))

    def net():
        kind = MODELS.build(Spec(recipe.objective.small_model, {"width": 2}))
        return recipe.network(kind.build, SHAPE)

    torch.manual_seed(0)
    model, pool = net(), None
    setting = Setting(model=model, shape=SHAPE, batch_size=6, fresh=net)
    auxiliaries = module_on_device(recipe.auxiliaries(setting))
    module_on_device(model)
    count = recipe.objective.teachers
    teachers = [module_on_device(net().eval().requires_grad_(False)) for _ in range(count)]
    if all(part.unlabelled for part in recipe.parts):
        extra = test.only(slice(8))
        extra = replace(extra, y=torch.full_like(extra.y, UNLABELLED))
        pool = Pool(data=there(extra), share=0.4, first=12)
    return Trainer(
        model=model,
        recipe=recipe,
        pool=pool,
        teachers=tuple(teachers),
        auxiliaries=auxiliaries,
        optimizer=OPTIMIZERS.build(Spec("sgd")).build(model, 0.02, recipe.groups(auxiliaries)),
        schedule=SCHEDULES.build(Spec("constant")),
        threat=Threat("Linf", 0.1),
        options=Training(epochs=2, batch_size=6, lr=0.02, probe=0),
        dataset=dataset,
        data=there(train.only(slice(12))),
    )


@pytest.mark.parametrize("name", RECIPES)
def test_no_step_waits_for_the_device(name, digits):
    allowed = ALLOWED.get(name, set())
    with pretended_device():
        trainer = trainer_of(RECIPES[name], digits)
        for epoch in range(2):  # tables that are made once and kept are there in the second
            with waits() as found:
                trainer.epoch(epoch)
            inside = [each for each in found if any(map(each.inside, STEPS))]
            odd = [str(each) for each in inside if not any(map(each.inside, allowed))]
            if not odd:
                break
    assert not odd
    for function in allowed:
        assert any(each.inside(function) for each in inside), f"{function} waits no more"


def test_an_epoch_waits_as_often_for_many_batches_as_for_few(digits):
    """Losses are read at the end and every ``CHECK_EVERY`` batches, which are more than these."""
    counted = []
    for images in (12, 30):
        with pretended_device():
            trainer = trainer_of(RECIPES["pgd-at"], digits)
            trainer.data = there(digits[1].only(slice(images)))
            with waits() as found:
                trainer.epoch(0)
        counted.append(len(found))
    assert counted[0] == counted[1] > 0


@dataclass(frozen=True)
class Files(ImageSource):
    """Images that are read when they are asked for."""

    x: Tensor

    @property
    def shape(self):
        return tuple(self.x.shape)

    def read(self, rows):
        return self.x[rows]

    def digest(self):
        return ""


def test_images_are_read_from_files_without_a_wait_for_the_device(digits):
    with pretended_device():
        trainer = trainer_of(RECIPES["standard"], digits)
        images = digits[1].stored[:12]
        stored = StoredImages(Files(images), torch.arange(12), PRETENDED)
        trainer.data = replace(trainer.data, stored=stored)
        with waits() as found:
            trainer.epoch(0)
    assert not [str(each) for each in found if any(map(each.inside, STEPS))]


@pytest.mark.parametrize("name", METRIC_DEFENSES.names())
def test_embeddings_are_trained_on_the_device(name, digits):
    """Waits are not counted: the package that mines triplets asks how many there are."""
    pytest.importorskip("pytorch_metric_learning")
    dataset, train, _ = digits
    torch.manual_seed(0)
    model = build_embedder(MODELS.build(Spec("digits-cnn", {"width": 2})), SHAPE, 8, True)
    known = {each.name for each in fields(METRIC_DEFENSES.entry(name).cls)}
    with pretended_device():
        module_on_device(model)
        trainer = MetricTrainer(
            model=model,
            defense=METRIC_DEFENSES.build(Spec(name, {"steps": 2} if "steps" in known else {})),
            optimizer=OPTIMIZERS.build(Spec("adam")).build(model, 0.02),
            schedule=SCHEDULES.build(Spec("constant")),
            threat=Threat("Linf", 0.1),
            options=Training(epochs=1, batch_size=8, lr=0.02, probe=0),
            embedding=Embedding(dim=8),
            dataset=dataset,
            data=there(train.only(slice(16))),
        )
        assert trainer.epoch(0)["loss"] is not None
