"""An epoch of each recipe in float64, by one process or by several that share every batch.

    python -m torch.distributed.run --nproc-per-node 2 tests/defenses/updates.py OUT RECIPE...

The first process leaves the weights of each recipe, and what its history says, in OUT.
"""

import sys
from functools import cache
from pathlib import Path

import torch

from robustbench_cli.commands.parent_runs import without_labels
from robustbench_cli.config.schema import Training
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.data import DATASETS
from robustbench_cli.data.pool import Pool
from robustbench_cli.defenses import Recipe, parse
from robustbench_cli.defenses._step import Setting
from robustbench_cli.distributed import env
from robustbench_cli.distributed.group import join_processes
from robustbench_cli.models import MODELS, Classifier, Shape
from robustbench_cli.optim import OPTIMIZERS, SCHEDULES
from robustbench_cli.training.trainer import Trainer

SHAPE = Shape(1, 8, 8, 10, (0.3,), (0.4,))


class Exact(Classifier):
    """A data set with float32 images for a float64 run, in which rounding cannot grow."""

    def features(self, x):
        return super().features(x.double())


def pooled(recipe):
    """Return True for recipes that are trained with extra, unlabelled images."""
    return all(part.unlabelled for part in recipe.parts)


def net(recipe, seed):
    torch.manual_seed(seed)

    def build(shape):
        kind = recipe.objective.small_model
        built = MODELS.build(Spec(kind, {"width": 4})).build(shape)
        # Of passes over some rows of a batch nobody knows which draws of one process are theirs;
        # and where dropout draws at all there are no bounds.
        dropout = torch.nn.Dropout(0.2 if kind == "digits-cnn" and not pooled(recipe) else 0.0)
        # A cast has no bounds; the normalisation in float64 is one, too.
        exact = Exact if kind == "digits-cnn" else Classifier
        return exact(built.normalize, torch.nn.Sequential(built.body, dropout), built.head)

    return recipe.network(build, SHAPE).double()


@cache
def digits_of(split):
    """Return the images of a split, read once for all recipes."""
    return DATASETS.build(Spec("digits")).load(split, Path())


def updated(text, shard):
    """Return the weights after an epoch, and its row of the history."""
    recipe = Recipe.build(parse(text))
    model = net(recipe, shard.rank)  # each begins elsewhere: agreeing is the trainer's business
    digits = DATASETS.build(Spec("digits"))
    train, test = map(digits_of, ("train", "test"))
    setting = Setting(model=model, shape=SHAPE, batch_size=7, fresh=lambda: net(recipe, shard.rank))
    auxiliaries = recipe.auxiliaries(setting).double()
    teachers = [net(recipe, 7 + i).eval().requires_grad_(False) for i in range(2)]
    optimizer = OPTIMIZERS.build(Spec("sgd")).build(model, 0.02, recipe.groups(auxiliaries))
    pool = Pool(data=without_labels(test.only(slice(20))), share=0.4, first=16)
    trainer = Trainer(
        model=model,
        recipe=recipe,
        pool=pool if pooled(recipe) else None,
        teachers=tuple(teachers[: recipe.objective.teachers]),
        auxiliaries=auxiliaries,
        optimizer=optimizer,
        schedule=SCHEDULES.build(Spec("constant")),
        threat=Threat("Linf", 0.1),
        # The last batch has two rows.
        options=Training(epochs=1, batch_size=7, lr=0.02, probe=3),
        dataset=digits,
        data=train.only(slice(16)),
        shard=shard,
    )
    trainer.agree()
    row = trainer.epoch(0)
    with trainer.swap_in_eval_weights():
        state = {
            **model.state_dict(),
            **{f"aid {k}": v for k, v in auxiliaries.state_dict().items()},
        }
    told = {k: v for k, v in row.items() if v is not None and "seconds" not in k}
    return state | {f"row {k}": torch.tensor(v) for k, v in told.items()}


def update_all(folder, texts):
    """Make the updates of every recipe, as one of several processes; the first one writes them."""
    torch.set_num_threads(1)
    with join_processes("cpu") as shard:
        for text in texts:
            found = updated(text, shard)
            if shard.is_main:
                torch.save(found, folder / f"{text}.pt")
    return 0


if __name__ == "__main__":
    env.end_process(update_all(Path(sys.argv[1]), sys.argv[2:]))
