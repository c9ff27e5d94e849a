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
from robustbench_cli.runs.audit_result import AuditResult
from robustbench_cli.runs.budget_spent import BudgetSpent
from robustbench_cli.runs.damage import check_record
from robustbench_cli.runs.outcomes import (
    Checkpoint,
    Detection,
    Domain,
    Measure,
    Outcome,
    Proof,
    Rejection,
    TargetedOutcome,
)
from robustbench_cli.runs.settings import DamagedRecord, RunSettings, read_settings
from robustbench_cli.runs.trust import Checked, Finding, Trust
from robustbench_cli.runs.widened_n import WidenedN

SCHEMA = 1

Kind = Literal[
    "train", "eval", "attack", "detect", "synth", "joint", "audit", "explain", "invert", "retrieve"
]
Status = Literal["started", "interrupted", "failed", "ok"]
UNFINISHED: tuple[Status, ...] = ("started", "interrupted", "failed")


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
    worst_case_least: float | None = None
    """The lower end of that where an attack left something open (``--budget``, ``--within``)."""
    budget: BudgetSpent | None = None
    """The budget of an evaluation and what it has spent; None: it took what it took."""
    n: int | None = None
    widened: WidenedN | None = None
    """How many images were enough (``--widen``); None: it was said how many to take."""
    attacks: dict[str, Outcome] = field(default_factory=dict)
    targeted: dict[str, TargetedOutcome] = field(default_factory=dict)
    """Attacks with a target: none of them has a part in a robust accuracy."""
    rejection: Rejection | None = None
    """How the model rejects images; None: it names a class for each."""
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
    explanations: dict[str, str] = field(default_factory=dict)
    """Name and sha256 of the file with the maps of explanations."""
    measures: list[Measure] = field(default_factory=list)
    """The numbers of runs that measure something other than accuracies under attack."""
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    checked: Checked | None = None
    """The checks that an evaluation ran; None: there were none."""
    findings: list[Finding] = field(default_factory=list)
    """What they found."""
    clean_trust: Trust = "unchecked"
    worst_case_trust: Trust = "unchecked"
    control: Outcome | None = None
    """The control that followed attacks which use gradients only: black-box attacks on some of the
    images that stood.  It counts in no attack's accuracy."""
    audit: AuditResult | None = None
    """The battery of an audit, and the grade of the claim."""
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


def goes_on(run: Run) -> bool:
    """Return whether a later command may go on with a run: unfinished, out of its budget, or due to
    look at more images."""
    left = (run.budget and run.budget.ran_out) or (run.widened and run.widened.goes_on)
    return run.status in UNFINISHED or bool(left)


def unsound(run: Run) -> dict[str, Trust]:
    """Return the trust in each accuracy of an evaluation that is not sound, by ``clean``, the
    attack's label, or ``all attacks``."""
    trusts: dict[str, Trust] = {"clean": run.clean_trust}
    trusts |= {label: outcome.trust for label, outcome in run.attacks.items()}
    # No check looks at an attack with a target, so "unchecked" says nothing of it.
    aimed = {label: outcome.trust for label, outcome in run.targeted.items()}
    trusts |= {label: trust for label, trust in aimed.items() if trust != "unchecked"}
    trusts |= {"all attacks": run.worst_case_trust} if len(run.attacks) > 1 else {}
    return {name: trust for name, trust in trusts.items() if trust != "sound"}


def data_name(run: Run) -> str:
    """Return the data set's name in tables: ``mnist``, or ``folder:NAME`` without its path.

    Where a subset of it was evaluated, the name says which.
    """
    settings = run.settings
    path, subset = settings.data_path, settings.subset_in_words
    name = f"{settings.data_name}:{Path(path).name}" if path else settings.data_name
    return f"{name} ({subset})" if subset else name


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
