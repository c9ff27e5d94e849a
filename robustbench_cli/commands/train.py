"""``advbench train``: one model, one recipe, one folder."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from robustbench_cli.commands import components, devices, parent_runs
from robustbench_cli.commands.display import Display
from robustbench_cli.commands.parent_runs import ParentNetworks
from robustbench_cli.commands.workspace import Workspace
from robustbench_cli.config.schema import TrainConfig, as_recorded, spec_of, specs_of, validated
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import stream_generator, stream_key
from robustbench_cli.data import DATASETS, Split
from robustbench_cli.data.pool import Pool, renumbered
from robustbench_cli.data.shape import shape_of
from robustbench_cli.defenses import DEFENSES, Recipe
from robustbench_cli.defenses._step import Setting
from robustbench_cli.distributed.group import ALONE, Shard, join_processes, local
from robustbench_cli.evaluation.model_check import check_model
from robustbench_cli.models import Shape
from robustbench_cli.models.layout import laid_out
from robustbench_cli.optim import OPTIMIZERS, SCHEDULES
from robustbench_cli.runs import folders, records
from robustbench_cli.runs.recorder import Recorder, recording
from robustbench_cli.runs.records import Run
from robustbench_cli.training import overfitting
from robustbench_cli.training.checkpointing import Keeper
from robustbench_cli.training.trainer import Trainer


def run_training(
    config: TrainConfig, workspace: Workspace, display: Display, *, command: list[str], run_id: str
) -> Path:
    """Train from the beginning; return the run's folder.

    Raises:
        UserError: something asked for cannot be had; no folder is left behind.
        RunError: training failed; what was finished is kept.
    """
    devices.use_deterministic_algorithms(config.train.deterministic)
    with join_processes(workspace.device) as shard:
        where = devices.resolve_device(local(workspace.device))
        config = replace(config, precision=devices.resolve_precision(config.precision, where))
        with shard.main_process_first():  # data may have to be downloaded
            prepared = _prepare(config, workspace, where, shard)
        run = Run(
            id=run_id,
            kind="train",
            created=records.now(),
            command=command,
            config=as_recorded(config),
            seed=config.seed,
            subject=components.recipe_label(config.defense),
            dataset=prepared.describe(),
            environment=devices.run_environment(where),
        )
        folder = shard.broadcast_from_main(lambda: folders.new(workspace.out, run_id))
        return _carry_on(run, folder, prepared, display)


def train_run_id(config: TrainConfig) -> str:
    """Return a new id for a run with this configuration."""
    return folders.new_id("+".join(config.defense), config.dataset["name"], config.seed)


def resume_training(name: str, workspace: Workspace, display: Display) -> Path:
    """Go on with an interrupted run, with the configuration it was started with.

    Raises:
        UserError: no such run, it is finished, or its data or state are not what they were.
    """
    with join_processes(workspace.device) as shard:
        return _resumed(name, workspace, shard, display)


def _resumed(name: str, workspace: Workspace, shard: Shard, display: Display) -> Path:
    folder = folders.find_run(name, workspace.out, "train")
    run = shard.broadcast_from_main(lambda: records.read(folder))
    if run.status == "ok":
        raise UserError(f"run {run.id!r} is finished; to train anew, leave --resume out")
    config = validated(TrainConfig, run.config)
    devices.use_deterministic_algorithms(config.train.deterministic)
    where = devices.resolve_device(local(workspace.device))
    with shard.main_process_first():
        prepared = _prepare(config, workspace, where, shard)
    if prepared.describe() != run.dataset:
        raise UserError(
            f"run {run.id!r} was started on other data than {run.settings.data_name!r} "
            f"holds now (fingerprints differ)"
        )
    again = {"from_epoch": len(run.history) + 1, **devices.run_environment(where)}
    run = replace(run, resumed=[*run.resumed, again])
    return _carry_on(run, folder, prepared, display)


def train_in_memory(config: TrainConfig, workspace: Workspace) -> nn.Module:
    """Return a net trained with this configuration; nothing of it is written.

    Raises:
        UserError: something asked for cannot be had.
        RunError: training failed.
    """
    trainer = _prepare(config, workspace, devices.resolve_device(workspace.device)).trainer
    for epoch in range(config.train.epochs):
        trainer.epoch(epoch)
    return trainer.model


@dataclass(frozen=True)
class _Prepared:
    """A run with its data loaded and its trainer built; nothing of it is on disk yet."""

    config: TrainConfig
    trainer: Trainer
    train: Split
    test: Split
    shape: Shape

    def describe(self) -> dict[str, Any]:
        """Return the data set as the record keeps it."""
        extra = self.trainer.pool
        return {
            "name": self.config.dataset["name"],
            "train": len(self.train),
            "test": len(self.test),
            "train_sha256": self.train.fingerprint(),
            "test_sha256": self.test.fingerprint(),
            "shape": {
                **asdict(self.shape),
                "mean": list(self.shape.mean),
                "std": list(self.shape.std),
            },
            "classes": list(self.train.classes),
        } | ({"extra": len(extra.data), "extra_sha256": extra.data.fingerprint()} if extra else {})


def _prepare(
    config: TrainConfig, workspace: Workspace, where: torch.device, shard: Shard = ALONE
) -> _Prepared:
    dataset = DATASETS.build(spec_of(config.dataset))
    train, test = (
        dataset.load("train", workspace.data_dir),
        dataset.load("test", workspace.data_dir),
    )
    if config.train.limit:
        train = train.only(slice(config.train.limit))
    shape = shape_of(dataset, train)
    torch.manual_seed(stream_key(config.seed, "weights"))
    model = laid_out(components.build_model(asdict(config), shape), where)
    known = parent_runs.load_parents(config.parents, workspace.out, shape, where)
    known.start(model)
    check_model(model, test.images(slice(2)).to(where), shape.classes)
    model.low_precision = config.precision == "bf16"
    data, held_out = _split(config, train, test)
    if len(data) < 2:
        raise UserError(f"training needs at least 2 examples, {len(data)} are left")
    recipe = Recipe.build(specs_of(config.defense))
    parent_runs.check_parents(recipe, config)
    _check_shared(recipe, shard)
    aids = recipe.auxiliaries(
        Setting(
            model=model,
            shape=shape,
            batch_size=config.train.batch_size,
            fresh=lambda: components.build_model(asdict(config), shape),
            seed=config.seed,
            threat=config.threat,
        )
    )
    aids = aids.to(where)
    optimizer = OPTIMIZERS.build(spec_of(config.optimizer)).build(
        model, config.train.lr, recipe.groups(aids)
    )
    trainer = Trainer(
        model=model,
        recipe=recipe,
        pool=_pool(config, workspace, known, train, where),
        teachers=known.teachers,
        auxiliaries=aids,
        optimizer=optimizer,
        schedule=SCHEDULES.build(spec_of(config.schedule)),
        threat=config.threat,
        options=config.train,
        dataset=dataset,
        data=data.to(where),
        held_out=held_out.to(where) if held_out else None,
        held_out_is="test" if config.train.select == "oracle" else "val",
        seed=config.seed,
        shard=shard,
    )
    return _Prepared(config, trainer, train, test, shape)


def _check_shared(recipe: Recipe, shard: Shard) -> None:
    """Raise ``UserError`` where processes cannot share a batch."""
    for part in recipe.parts:
        if part.alone and shard.world > 1:
            raise UserError(
                f"{DEFENSES.name_of(part)} {part.alone}, which processes cannot share: train it "
                "without torchrun"
            )


def _pool(
    config: TrainConfig,
    workspace: Workspace,
    known: ParentNetworks,
    train: Split,
    where: torch.device,
) -> Pool | None:
    """Return the extra data, labelled as configured; None where there is none."""
    labelled = parent_runs.LABELLER in config.parents
    if not config.extra:
        if labelled:
            raise UserError("--labeller labels extra data: add --extra-data")
        return None
    if not config.train.extra_share:
        return None
    found = DATASETS.build(spec_of(config.extra)).pool(workspace.data_dir).to("cpu")
    if found.image_shape != train.image_shape:
        raise UserError(
            f"--extra-data has images of {tuple(found.image_shape)}, the data set of "
            f"{tuple(train.image_shape)}"
        )
    if labelled:
        found = known.labelled(found, train.classes, where)
    elif config.train.extra_labels == "none":
        found = parent_runs.without_labels(found)
    else:
        found = renumbered(found, train.classes)
    pool = Pool(data=found.to(where), share=config.train.extra_share, first=len(train))
    if pool.replaces_data and not labelled and config.train.extra_labels == "none":
        raise UserError(
            "train.extra_share=1 with train.extra_labels=none leaves no label to learn from: name "
            "a --labeller, or train.extra_labels=own"
        )
    # A share that rounds to all or nothing is refused before there is a folder.
    pool.labelled_per_batch(config.train.batch_size)
    return pool


def _split(config: TrainConfig, train: Split, test: Split) -> tuple[Split, Split | None]:
    """Return the training split and the split that selection uses, if any.

    Selection uses held-out training images; only ``select=oracle`` uses the test set.
    """
    held = config.train.validation
    if held >= len(train):
        raise UserError(f"train.validation={held} leaves nothing of {len(train)} examples")
    if held:
        # One fixed permutation: the same examples are held out under every seed.
        order = torch.randperm(len(train), generator=stream_generator("validation split"))
        return train.only(order[held:]), train.only(order[:held])
    return train, test if config.train.select == "oracle" else None


def _carry_on(run: Run, folder: Path, prepared: _Prepared, display: Display) -> Path:
    trainer, config = prepared.trainer, prepared.config
    silent = not trainer.shard.is_main
    with recording(run, folder, silent=silent) as recorder, trainer.shard.share_failure():
        keeper = Keeper(recorder=recorder, trainer=trainer, config=config)
        keeper.restore()
        trainer.agree()
        for text in trainer.recipe.warnings():
            _warn(text, recorder, display)
        for text in dict.fromkeys((*trainer.data.notes, *prepared.test.notes)):
            _note(text, recorder, display)
        display.started(recorder.run, folder)
        display.training(config.train.epochs, len(keeper.history))
        for epoch in range(len(keeper.history), config.train.epochs):
            row = trainer.epoch(epoch, display.batch)
            fell = overfitting.collapse([*keeper.history, row], config.train.collapse)
            stop = bool(fell) and config.train.on_collapse == "stop"
            keeper.refuse(row) if stop else keeper.add(row)
            display.epoch(row)
            if fell:
                end = "; training was stopped, nothing of that epoch is kept" * stop
                _warn(fell + end, recorder, display)
            if stop:
                break
        if blind := overfitting.blind(keeper.history, config.train.collapse):
            _warn(blind, recorder, display)
        keeper.finish()
    return folder


def _warn(text: str, recorder: Recorder, display: Display) -> None:
    """Show a warning and, once, add it to the record."""
    _note(text, recorder, display, shown=f"warning: {text}")


def _note(text: str, recorder: Recorder, display: Display, *, shown: str = "") -> None:
    """Show a note and, once, add it to the record."""
    display.note(shown or text)
    notes = recorder.run.notes
    recorder.update(notes=notes if text in notes else [*notes, text])
