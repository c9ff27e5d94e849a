"""The record of a run, ``results/<id>/run.json``, replaced whole at every change.

No torch in here: reports must start fast.
"""

import errno
import hashlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import AwareDatetime, TypeAdapter, ValidationError

from robustbench_cli.core.atomic_files import write_bytes_atomically
from robustbench_cli.core.errors import UserError
from robustbench_cli.runs.damage import check_record
from robustbench_cli.runs.settings import DamagedRecord, Finite, RunSettings, read_settings

SCHEMA = 1

Kind = Literal["train", "eval", "attack", "detect", "synth", "joint"]
Population = Literal["adversarial", "clean+adversarial"]
Status = Literal["started", "interrupted", "failed", "ok"]
UNFINISHED: tuple[Status, ...] = ("started", "interrupted", "failed")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Weights that a training run kept."""

    file: str
    sha256: str
    epoch: int
    rule: str
    """The rule for the epoch: last, best (held-out validation), epoch, oracle (test set)."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of one attack on all examples of an evaluation."""

    params: dict[str, Any]
    n: int
    correct: int
    """Examples that are classified correctly before and after."""
    robust_accuracy: float
    forwards: int
    """Images pushed forward through the model, the verdict's own passes included."""
    backwards: int
    seconds: float
    eps: Finite | None = None
    """The radius, where it is not the evaluation's own (a sweep)."""
    broken_by: dict[str, int] = field(default_factory=dict)
    """The number of examples that each member of an ensemble broke."""
    stages: list[str] = field(default_factory=list)
    """The member of an ensemble that each number in ``by`` stands for (``examples.npz``)."""
    minimal: bool = False
    """True if the attack looks for the nearest image, so that it has a distance."""
    median_norm: float | None = None
    """Of attacks for the nearest image: the median distance; None where half were not reached."""
    majority_accuracy: float | None = None
    """Of a randomised model: examples whose most frequent prediction is right."""
    spread: tuple[float, float] | None = None
    """Of a randomised model: the 5 % and 95 % points of the accuracy over single draws."""


@dataclass(frozen=True, kw_only=True)
class Within:
    """The examples certified within one radius."""

    norm: str
    eps: Finite
    radius: Finite
    """The same in the certificate's norm: that of the smallest ball which holds the other."""
    correct: int
    """Examples whose true class is certified at least as far."""
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class Proof:
    """The result of one certificate on all examples of an evaluation."""

    params: dict[str, Any]
    norm: str
    """The norm in which radii are measured."""
    n: int
    correct: int
    """Examples whose true class is predicted; of smoothing: by the smoothed classifier."""
    accuracy: float
    abstained: float
    """The share of examples for which no class is predicted."""
    uncertified: float
    """The share of examples for which no class is certified."""
    mean_radius: float
    """The average certified radius (ACR): 0 for an example whose true class is not certified."""
    within: list[Within]
    forwards: int
    """Noisy images pushed through the model."""
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Detection:
    """The power of one detector to tell wrong answers from right ones under one attack."""

    detector: str
    params: dict[str, Any]
    fitted: str
    """sha256 of what it had learned."""
    attack: str
    population: Population
    """Every image as the attack left it; or these and the clean ones together."""
    wrong: int
    right: int
    auroc: float | None
    """The share of pairs, one wrong and one right, in which the wrong answer is the more suspicious
    one, ties half; None where all are wrong or none."""


@dataclass(frozen=True, kw_only=True)
class Domain:
    """One of several domains that the same perturbation is to fool."""

    name: str
    clean_accuracy: float
    robust_accuracy: float
    """The share of examples about which it is right at the image that counts."""
    weight: float
    """The attack's final weight of it: the mean over the examples it attacked."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One command, as it was asked and as it went.  Fields are only ever added."""

    schema: int = SCHEMA
    id: str
    kind: Kind
    status: Status = "started"
    created: AwareDatetime
    updated: AwareDatetime | None = None
    command: list[str]
    config: dict[str, Any]
    """Every setting that decides the outcome, defaults included."""
    seed: int = 0
    parent: str | None = None
    """The training run that was evaluated."""
    subject: str = ""
    """The name of its row in tables: ``trades+awp``, or the user's own model."""
    dataset: dict[str, Any] = field(default_factory=dict)
    """Name, sizes and sha256 fingerprints of the data that was used."""
    environment: dict[str, Any] = field(default_factory=dict)
    resumed: list[dict[str, Any]] = field(default_factory=list)
    """The environment of each later process that went on with the run."""
    history: list[dict[str, float | int | None]] = field(default_factory=list)
    """One row per epoch."""
    checkpoint: Checkpoint | None = None
    """The weights that a training run's rule keeps."""
    last: Checkpoint | None = None
    """The weights after a training run's last epoch, where the rule keeps others."""
    weights: str = ""
    """sha256 of the weights that were evaluated."""
    evaluated: Checkpoint | None = None
    """The checkpoint of the training run that these weights are."""
    search: str = ""
    """The arithmetic that attacks searched in: float32, or something faster.  Verdicts are always
    float32's."""
    clean_accuracy: float | None = None
    worst_case_accuracy: float | None = None
    """Examples that no attack of this evaluation broke, per example."""
    n: int | None = None
    attacks: dict[str, Outcome] = field(default_factory=dict)
    certificates: dict[str, Proof] = field(default_factory=dict)
    domains: list[Domain] = field(default_factory=list)
    """Of a joint attack, whose accuracies count examples that are not wrong in all of them."""
    examples: dict[str, str] = field(default_factory=dict)
    """Name and sha256 of the file with one verdict per example."""
    fitted: dict[str, str] = field(default_factory=dict)
    """Name and sha256 of the file with what a detector or a generator has learned."""
    detections: list[Detection] = field(default_factory=list)
    scores: dict[str, str] = field(default_factory=dict)
    """Name and sha256 of the file with what each detector says of each answer."""
    samples: dict[str, str] = field(default_factory=dict)
    """Name and sha256 of the file with a generator's images."""
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    error: str | None = None

    @cached_property
    def settings(self) -> RunSettings:
        """The configuration and the data set, typed; raise ``DamagedRecord`` for a wrong shape."""
        return read_settings(self.id, self.config, self.dataset)


_RUN = TypeAdapter(Run)


def write(run: Run, folder: Path) -> Path:
    """Replace ``run.json`` whole, so a reader never sees half of one."""
    return write_bytes_atomically(folder / "run.json", _RUN.dump_json(run, indent=2) + b"\n")


def read(path: Path) -> Run:
    """The record in ``path`` (a run's folder or its ``run.json``).

    Raises:
        UserError: it is absent, damaged, or of a newer schema.
    """
    file = path / "run.json" if path.is_dir() else path
    try:
        run = _RUN.validate_json(_content(file))
    except FileNotFoundError:
        raise UserError(f"no run at {str(path)!r}: {file.name} is missing") from None
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise DamagedRecord(str(file), f"{where or 'file'}: {first['msg']}") from None
    if run.schema > SCHEMA:
        raise UserError(
            f"{file} has schema {run.schema}, this advbench reads up to {SCHEMA}: upgrade advbench"
        )
    try:
        check_record(run)
    except DamagedRecord as error:
        raise DamagedRecord(str(file), error.what) from None
    return run


def _content(file: Path) -> bytes:
    """The bytes of a record; raise ``OSError`` for a folder, a pipe or a device in its place."""
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as handle:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        return handle.read()


def data_name(run: Run) -> str:
    """Return the data set's name in tables: ``mnist``, or ``folder:NAME`` without its path."""
    settings = run.settings
    path = settings.data_path
    return f"{settings.data_name}:{Path(path).name}" if path else settings.data_name


def now() -> datetime:
    """The time, with its zone."""
    return datetime.now(UTC)


def sha256(path: Path) -> str:
    """The hash of a file's content; raise ``UserError`` that names it if it cannot be read."""
    try:
        with path.open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None


def filed(path: Path) -> dict[str, str]:
    """Return the name and the sha256 of a file, as a record holds them."""
    return {"file": path.name, "sha256": sha256(path)}


def as_json(values: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` as they come back from a file: a list where a tuple was."""
    result: dict[str, Any] = json.loads(json.dumps(values))
    return result


def same_but_seed(config: Mapping[str, Any]) -> str:
    """A key that is equal for runs which differ only in their seed."""
    # A preset and the same settings typed by hand are one configuration.
    rest = {key: value for key, value in config.items() if key not in ("seed", "preset")}
    return hashlib.sha256(_TABLE.dump_json(rest)).hexdigest()


_TABLE = TypeAdapter(dict[str, Any])
