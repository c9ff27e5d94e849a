"""The task of a training run, and the functions that configure, start and resume it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from robustbench_cli.commands.components import defense_tables
from robustbench_cli.commands.display import Display
from robustbench_cli.commands.metric_config import metric_tables, resolve_metric_config, task_of
from robustbench_cli.commands.train import resume_training, run_training, train_run_id
from robustbench_cli.commands.train_config import resolve_train_config, smoke_substitutes
from robustbench_cli.commands.train_metric import metric_run_id, resume_metric, train_metric
from robustbench_cli.commands.workspace import Workspace
from robustbench_cli.config.layers import ConfigTable
from robustbench_cli.config.schema import TrainConfig, is_metric
from robustbench_cli.core.errors import UserError, hint
from robustbench_cli.runs import folders, records


@dataclass(frozen=True)
class TrainingTask:
    """What ``advbench train`` does for one task."""

    defense: Callable[[str], ConfigTable]
    """The ``defense`` section from what was typed."""
    configure: Callable[..., TrainConfig]
    substitutes: Callable[[ConfigTable], list[str]]
    """What a smoke run trains with in place of what was asked for, a phrase each."""
    new_id: Callable[[TrainConfig], str]
    start: Callable[..., Path]


_TASKS: Mapping[str, TrainingTask] = {
    "classify": TrainingTask(
        defense_tables, resolve_train_config, smoke_substitutes, train_run_id, run_training
    ),
    "metric": TrainingTask(
        metric_tables, resolve_metric_config, lambda _: [], metric_run_id, train_metric
    ),
}


def training_task(typed: ConfigTable) -> TrainingTask:
    """Return the task that flags, or the preset that they name, ask for.

    Raises:
        UserError: there is no such task or preset.
    """
    name = task_of(typed)
    if name not in _TASKS:
        raise UserError(f"unknown task {name!r}{hint(name, _TASKS)}")
    return _TASKS[name]


def resume_run(name: str, workspace: Workspace, display: Display) -> Path:
    """Go on with an interrupted training of any task; return its folder.

    Raises:
        UserError: no such run, it is finished, or its data or state are not what they were.
    """
    folder = folders.find_run(name, workspace.out, "train")
    run = records.read(folder)
    if is_metric(run.config):
        return resume_metric(run, folder, workspace, display)
    return resume_training(name, workspace, display)
