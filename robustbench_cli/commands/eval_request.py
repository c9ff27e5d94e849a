"""The request of an evaluation: a model, a configuration, and the folder of its record."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from robustbench_cli.attacks import Attack
from robustbench_cli.audit import Evidence
from robustbench_cli.audit._probe import Copy
from robustbench_cli.commands.attack_columns import AttackColumns
from robustbench_cli.commands.devices import run_environment
from robustbench_cli.commands.fitted_detectors import FittedDetector
from robustbench_cli.commands.workspace import Workspace
from robustbench_cli.config.schema import EvalConfig, as_recorded
from robustbench_cli.data import Split
from robustbench_cli.evaluation.budget import Budget
from robustbench_cli.evaluation.sequential_n import Look
from robustbench_cli.evaluation.stages import AttackVerdicts
from robustbench_cli.models.fitting import Fitting
from robustbench_cli.runs import folders, records
from robustbench_cli.runs.outcomes import Checkpoint
from robustbench_cli.runs.records import Run
from robustbench_cli.runs.trust import Finding


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model to evaluate, with the names that records give it."""

    model: nn.Module
    name: str
    weights: str
    """sha256 of the weights, or of the file that makes the model."""
    parent: str | None = None
    kept: Checkpoint | None = None
    """The training run's checkpoint that holds the weights."""
    seed: int = 0
    """The seed of the training run, so that tables can join seeds."""
    notes: tuple[str, ...] = ()
    """Notes for the record of every evaluation of it."""
    copy: Copy | None = None
    """Makes the model anew; None: it is copied in memory before it is used."""
    fitting: Fitting | None = None
    """What the model expects, where it is not fitted to the data yet."""


@dataclass(frozen=True, kw_only=True)
class AttacksDone:
    """The attacks of an evaluation when they are done, for the battery of an audit."""

    evidence: Evidence
    """The verdicts, by example."""
    columns: Mapping[str, AttackVerdicts]
    """The verdicts by the attack's label."""
    clean: AttackVerdicts
    """The verdicts on the clean images."""
    findings: Sequence[Finding]
    """What the checks before have found."""
    attacks: AttackColumns
    """Runs further attacks, and keeps their verdicts in the journal."""


RunBattery = Callable[[AttacksDone], Iterator[Finding]]
"""Runs the battery of an audit and yields what it finds."""


@dataclass(frozen=True, kw_only=True)
class EvalRequest:
    """The settings of one evaluation: ``eval``, ``attack``, ``detect eval``, or one from Python."""

    subject: Subject
    source: Subject | None = None
    """The model that images are crafted on, if it is not the subject."""
    config: EvalConfig
    detector: FittedDetector | None = None
    """The detector of ``config.reject``, if that is one."""
    workspace: Workspace
    command: list[str]
    data: Split | None = None
    """Images in memory to evaluate on; None: the test split of ``config.dataset``."""
    attacks: Mapping[str, Attack] = field(default_factory=dict)
    """The attacks of ``config.attack`` by label, where they have been built and checked already;
    empty: they are built from it."""
    name: str | None = None
    budget: Budget | None = None
    """What it may spend; None: whatever it takes."""
    look: Look | None = None
    """Which look at ever more images this is; None: all ``config.n`` are taken at once."""
    kind: records.Kind = "eval"
    early_stop: bool = True
    """Whether attacks leave an example once it is broken; else they go on to the surest error."""
    battery: RunBattery | None = None
    """Runs the battery of an audit after the attacks; its checks look at more images, then."""

    @property
    def n(self) -> int:
        """How many images are taken, from the first; 0: all."""
        return self.config.n if self.look is None else self.look.n


def new_record(
    request: EvalRequest, data: Split, chosen: Split, whole: int, where: torch.device
) -> Run:
    """Return the record of an evaluation that is about to start.

    Args:
        data: the images that are evaluated: the first ``request.n`` of ``chosen``.
        chosen: the test split, or the subset of it that was asked for, in its order.
        whole: the number of images in the test split.
        where: the device.
    """
    config, subject = request.config, request.subject
    made_up = folders.new_id(f"{request.kind}-{subject.name}", config.dataset["name"], subject.seed)
    return Run(
        id=request.name or made_up,
        kind=request.kind,
        created=records.now(),
        command=request.command,
        config=records.as_json(as_recorded(config)),
        seed=subject.seed,
        parent=subject.parent,
        subject=subject.name,
        dataset={
            "name": config.dataset["name"],
            "test": whole,
            "test_sha256": chosen.fingerprint(),
        },
        environment=run_environment(where),
        weights=subject.weights,
        evaluated=subject.kept,
        n=len(data),
    )
