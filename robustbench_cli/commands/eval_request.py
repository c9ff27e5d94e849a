"""What one evaluation is asked for: which model, under which configuration, kept where."""

from dataclasses import dataclass

from torch import nn

from robustbench_cli.commands.train_config import Place
from robustbench_cli.config.schema import EvalConfig
from robustbench_cli.runs import records
from robustbench_cli.runs.records import Checkpoint


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model to evaluate and how records call it."""

    model: nn.Module
    name: str
    weights: str
    """sha256 of the weights, or of the file that makes the model."""
    parent: str | None = None
    kept: Checkpoint | None = None
    """Which of the training run's weights they are."""
    seed: int = 0
    """The seed of the training run, so that tables can join seeds."""
    notes: tuple[str, ...] = ()
    """What is to be said of an evaluation of it."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What one command asks for."""

    subject: Subject
    source: Subject | None = None
    """The model that images are crafted on, if it is not the subject."""
    config: EvalConfig
    place: Place
    command: list[str]
    name: str | None = None
    kind: records.Kind = "eval"
    early_stop: bool = True
    """Whether attacks leave an example once it is broken; else they go on to the surest error."""
