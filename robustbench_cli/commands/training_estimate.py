"""How long a training will take on this machine, from a few of its updates."""

import shlex
import tempfile
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from robustbench_cli.commands.components import component_table
from robustbench_cli.commands.display import Display
from robustbench_cli.commands.training_task import TrainingTask, training_task
from robustbench_cli.commands.workspace import Workspace
from robustbench_cli.config.schema import TrainConfig, spec_of
from robustbench_cli.core.atomic_files import write_bytes_atomically
from robustbench_cli.core.errors import UserError
from robustbench_cli.data import DATASETS
from robustbench_cli.runs import records

TRIAL_IMAGES = 8
"""Images of the first trial; each further one has four times as many."""
MORE_TRIAL_IMAGES = 512
"""Images of a trial at most."""
LONG_ENOUGH = 2.0
"""Seconds of a trial after which there is no further one."""
KEPT_ESTIMATES = "estimates.json"
"""The file, beside the runs, with the estimates that were made for them."""


@dataclass(frozen=True, kw_only=True)
class TrainingEstimate:
    """The length of a training by a trial."""

    minutes: float
    images: int
    """Of an epoch."""
    epochs: int


_ESTIMATES = TypeAdapter(dict[str, TrainingEstimate])


def training_estimate(words: Sequence[str], workspace: Workspace) -> TrainingEstimate:
    """Return how long ``advbench train`` with these words takes, without its measurements.

    Args:
        words: the command without ``advbench``: a defense, ``--preset``, ``--dataset`` and so on.
        workspace: where the data are, and the device; nothing is written there.

    Raises:
        UserError: the training cannot be had, e.g. because its data are not there.
        RunError: it fails at once.
    """
    task, config = configured(words)
    whole = DATASETS.build(spec_of(config.dataset)).load("train", workspace.data_dir)
    images = min(config.train.limit or len(whole), len(whole) - config.train.validation)
    seconds, shown = _trial(task, config, TRIAL_IMAGES, workspace), TRIAL_IMAGES
    most = min(MORE_TRIAL_IMAGES, images)
    while seconds < LONG_ENOUGH and shown < most:
        shown = min(4 * shown, most)
        seconds = _trial(task, config, shown, workspace)
    minutes = seconds / shown * images * config.train.epochs / 60
    return TrainingEstimate(minutes=minutes, images=images, epochs=config.train.epochs)


def kept_estimate(words: Sequence[str], workspace: Workspace, *, keep: bool) -> TrainingEstimate:
    """Return the estimate that was made for the folder of runs before, else one that is made now.

    So the same command makes the same plan, however busy the machine has become.

    Args:
        workspace: with the folder of the runs in ``out``.
        keep: whether a new estimate is written there.

    Raises:
        UserError: the file of estimates is damaged, or see ``training_estimate``.
        RunError: the training fails at once.
    """
    file, key = workspace.out / KEPT_ESTIMATES, shlex.join(words)
    try:
        known = _ESTIMATES.validate_json(file.read_bytes()) if file.is_file() else {}
    except ValidationError as error:
        said = error.errors()[0]["msg"]
        raise UserError(f"{file} is damaged: {said}; delete it to have it made anew") from None
    if key not in known:
        known[key] = training_estimate(words, workspace)
        if keep:
            workspace.out.mkdir(parents=True, exist_ok=True)
            write_bytes_atomically(file, _ESTIMATES.dump_json(known, indent=2) + b"\n")
    return known[key]


def absent_data(words: Sequence[str], workspace: Workspace) -> str:
    """Return the name of the data set of a training if it would have to be downloaded, or nothing.

    Raises:
        UserError: the training cannot be had.
    """
    spec = spec_of(configured(words)[1].dataset)
    return "" if DATASETS.build(spec).at_hand(workspace.data_dir) else spec.name


def configured(words: Sequence[str]) -> tuple[TrainingTask, TrainConfig]:
    """Return the task and the configuration that the words of a command ask for."""
    parser = ArgumentParser(add_help=False, exit_on_error=False)
    parser.add_argument("command")
    parser.add_argument("defense", nargs="?")
    for name in ("task", "preset", "dataset", "model", "norm", "eps"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--set", action="append", default=[])
    said, rest = parser.parse_known_args(words)
    if rest:
        raise UserError(f"no estimate of a training with {' '.join(rest)}")
    task = training_task(_given(task=said.task, preset=said.preset))
    typed = _given(
        task=said.task,
        preset=said.preset,
        defense=task.defense(said.defense) if said.defense else None,
        dataset=component_table("dataset", said.dataset) if said.dataset else None,
        model=component_table("model", said.model) if said.model else None,
        threat=_given(norm=said.norm, eps=said.eps) or None,
        train=_given(epochs=said.epochs) or None,
    )
    return task, task.configure(typed, said.set)


def _given(**settings: Any) -> dict[str, Any]:
    """Return the settings that are there."""
    return {name: value for name, value in settings.items() if value is not None}


def _trial(task: TrainingTask, config: TrainConfig, images: int, workspace: Workspace) -> float:
    """Return the seconds that one epoch of so many images takes."""
    train = replace(
        config.train,
        epochs=1,
        limit=images,
        batch_size=max(2, min(images, config.train.batch_size)),
        validation=0,
        select="last",
        select_epoch=0,
        probe=0,
        on_collapse="warn",
    )
    with tempfile.TemporaryDirectory() as out:
        there = replace(workspace, out=Path(out))
        folder = task.start(
            replace(config, train=train), there, Display(), command=["train"], run_id="trial"
        )
        (row,) = records.read(folder).history
    seconds = row["train_seconds"]
    if not seconds:
        raise UserError("the trial took no time that could be measured")
    return float(seconds)
