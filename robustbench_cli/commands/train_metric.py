"""``advbench train --task metric``: embeddings, with the folder and the record of any training."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from robustbench_cli.commands import devices
from robustbench_cli.commands.components import shape_from_record
from robustbench_cli.commands.display import Display
from robustbench_cli.commands.load_model import checked_file
from robustbench_cli.commands.metric_config import built, metric_label
from robustbench_cli.commands.metric_data import retrieval_images, training_images
from robustbench_cli.commands.workspace import Workspace
from robustbench_cli.config.schema import (
    TrainConfig,
    as_recorded,
    is_metric,
    spec_of,
    validated,
)
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import stream_generator, stream_key
from robustbench_cli.data import DATASETS, Split
from robustbench_cli.data.shape import shape_of
from robustbench_cli.distributed import env
from robustbench_cli.metric_learning._embedder import Embedder, build_embedder
from robustbench_cli.metric_learning._losses import metric_loss
from robustbench_cli.models import MODELS, Shape
from robustbench_cli.models.layout import laid_out
from robustbench_cli.optim import OPTIMIZERS, SCHEDULES
from robustbench_cli.runs import folders, records
from robustbench_cli.runs.recorder import Recorder, recording
from robustbench_cli.runs.records import Run
from robustbench_cli.training.checkpoint import load_tensors
from robustbench_cli.training.checkpointing import Keeper
from robustbench_cli.training.metric_trainer import MetricTrainer, collapsed


def train_metric(
    config: TrainConfig, workspace: Workspace, display: Display, *, command: list[str], run_id: str
) -> Path:
    """Train embeddings from the beginning; return the run's folder.

    Raises:
        UserError: something asked for cannot be had; no folder is left behind.
        RunError: training failed; what was finished is kept.
    """
    prepared = _prepare(config, workspace)
    run = Run(
        id=run_id,
        kind="train",
        created=records.now(),
        command=command,
        config=records.as_json(as_recorded(config)),
        seed=config.seed,
        subject=metric_label(as_recorded(config)),
        dataset=prepared.describe(),
        environment=devices.run_environment(prepared.where),
    )
    return _carry_on(run, folders.new(workspace.out, run_id), prepared, display)


def metric_run_id(config: TrainConfig) -> str:
    """Return a new id for a run with this configuration."""
    return folders.new_id(f"metric-{'+'.join(config.defense)}", config.dataset["name"], config.seed)


def resume_metric(run: Run, folder: Path, workspace: Workspace, display: Display) -> Path:
    """Go on with an interrupted run, with the configuration it was started with.

    Raises:
        UserError: it is finished, or its data or state are not what they were.
    """
    if run.status == "ok":
        raise UserError(f"run {run.id!r} is finished; to train anew, leave --resume out")
    prepared = _prepare(validated(TrainConfig, run.config), workspace)
    if records.as_json(prepared.describe()) != run.dataset:
        raise UserError(
            f"run {run.id!r} was started on other data than {run.settings.data_name!r} "
            f"holds now (fingerprints differ)"
        )
    again = {
        "from_epoch": len(run.history) + 1,
        **devices.run_environment(prepared.where),
    }
    run = replace(run, resumed=[*run.resumed, again])
    return _carry_on(run, folder, prepared, display)


def load_embedder(run: Run, folder: Path, where: torch.device) -> Embedder:
    """Return the net of a metric-learning run, in evaluation mode.

    Raises:
        UserError: it is no such run, or its weights are missing or damaged.
    """
    if run.kind != "train" or not is_metric(run.config):
        raise UserError(
            f"run {run.id!r} is no metric-learning run: advbench train --task metric makes one"
        )
    path = checked_file(run, folder)
    config = validated(TrainConfig, run.config)
    model = _net(config, shape_from_record(run.settings.shape))
    tensors, _ = load_tensors(path)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        first = str(error).splitlines()[0]
        raise UserError(f"checkpoint {str(path)!r} does not fit its run: {first}") from None
    return laid_out(model, where).eval().requires_grad_(False)


@dataclass(frozen=True)
class _Prepared:
    """A run with its data loaded and its trainer built; nothing of it is on disk yet."""

    config: TrainConfig
    trainer: MetricTrainer
    train: Split
    test: Split
    shape: Shape
    where: torch.device

    def describe(self) -> dict[str, Any]:
        """Return the data set as the record keeps it."""
        return records.as_json(
            {
                "name": self.config.dataset["name"],
                "train": len(self.train),
                "test": len(self.test),
                "train_sha256": self.train.fingerprint(),
                "test_sha256": self.test.fingerprint(),
                "shape": asdict(self.shape),
                "classes": list(self.train.classes),
            }
        )


def _net(config: TrainConfig, shape: Shape) -> Embedder:
    model, embedding = MODELS.build(spec_of(config.model)), config.embedding
    return build_embedder(model, shape, embedding.dim, embedding.unit)


def _prepare(config: TrainConfig, workspace: Workspace) -> _Prepared:
    if env.world() > 1:
        raise UserError("metric learning keeps its batches in one process: run it without torchrun")
    defense, embedding = built(config.defense), config.embedding
    metric_loss(defense.loss, defense.margin_for(embedding.unit), embedding.unit)  # is it there?
    _check_batches(config)
    devices.use_deterministic_algorithms(config.train.deterministic)
    where = devices.resolve_device(workspace.device)
    dataset = DATASETS.build(spec_of(config.dataset))
    train = training_images(dataset, embedding, workspace.data_dir)
    test = retrieval_images(dataset, embedding, workspace.data_dir)
    if config.train.limit:
        train = _spread(train, config.train.limit)
    shape = shape_of(dataset, train)
    torch.manual_seed(stream_key(config.seed, "weights"))
    model = laid_out(_net(config, shape), where)
    data, held_out = _split(train, config.train.validation)
    trainer = MetricTrainer(
        model=model,
        defense=defense,
        optimizer=OPTIMIZERS.build(spec_of(config.optimizer)).build(model, config.train.lr),
        schedule=SCHEDULES.build(spec_of(config.schedule)),
        threat=config.threat,
        options=config.train,
        embedding=embedding,
        dataset=dataset,
        data=data.to(where),
        held_out=held_out.to(where) if held_out else None,
        seed=config.seed,
    )
    return _Prepared(config, trainer, train, test, shape, where)


def _check_batches(config: TrainConfig) -> None:
    per_class, size = config.embedding.per_class, config.train.batch_size
    if size % per_class or size < 2 * per_class:
        raise UserError(
            f"train.batch_size={size} must be a multiple of embedding.per_class={per_class}, and "
            "hold two classes"
        )


def _spread(train: Split, limit: int) -> Split:
    """Return the first images, as many of each class as of any other while there are."""
    order = torch.argsort(train.y, stable=True)
    counts = torch.bincount(train.y)
    starts = counts.cumsum(0) - counts
    turn = torch.empty_like(order)
    turn[order] = torch.arange(len(order)) - starts[train.y[order]]
    return train.only(torch.argsort(turn, stable=True)[:limit].sort().values)


def _split(train: Split, held: int) -> tuple[Split, Split | None]:
    """Return the training images and the held-out ones, which are the same under every seed."""
    if held >= len(train) - 1:
        raise UserError(f"train.validation={held} leaves nothing of {len(train)} examples")
    if not held:
        return train, None
    order = torch.randperm(len(train), generator=stream_generator("validation split"))
    return train.only(order[held:]), train.only(order[:held])


def _carry_on(run: Run, folder: Path, prepared: _Prepared, display: Display) -> Path:
    trainer, config = prepared.trainer, prepared.config
    with recording(run, folder) as recorder:
        keeper = Keeper(recorder=recorder, trainer=trainer, config=config)
        keeper.restore()
        for text in dict.fromkeys((*trainer.data.notes, *prepared.test.notes)):
            _note(text, recorder, display)
        display.started(recorder.run, folder)
        display.training(config.train.epochs, len(keeper.history))
        for epoch in range(len(keeper.history), config.train.epochs):
            row = trainer.epoch(epoch, display.batch)
            keeper.add(row)
            display.epoch(row)
        if keeper.history and (text := collapsed(keeper.history[-1])):
            _note(text, recorder, display, shown=f"warning: {text}")
        keeper.finish()
    return folder


def _note(text: str, recorder: Recorder, display: Display, *, shown: str = "") -> None:
    """Show a note and, once, add it to the record."""
    display.note(shown or text)
    notes = recorder.run.notes
    recorder.update(notes=notes if text in notes else [*notes, text])
