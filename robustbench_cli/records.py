"""What a run leaves behind: ``results/<id>/run.json``, replaced whole at every change.

No torch in here: reports must start fast.
"""

import fcntl
import hashlib
import json
import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from robustbench_cli.errors import UserError, hint

SCHEMA = 1

Kind = Literal["train", "eval", "attack"]
Status = Literal["started", "interrupted", "failed", "ok"]
UNFINISHED: tuple[Status, ...] = ("started", "interrupted", "failed")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The weights a training run kept."""

    file: str
    sha256: str
    epoch: int
    rule: str
    """How the epoch was chosen: last, best (held-out validation), epoch, oracle (test set)."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one attack did to all examples of an evaluation."""

    params: dict[str, Any]
    n: int
    correct: int
    """Examples that are classified correctly before and after."""
    robust_accuracy: float
    forwards: int
    """Images pushed forward through the model, the verdict's own passes included."""
    backwards: int
    seconds: float
    eps: float | None = None
    """The radius, where it is not the evaluation's own (a sweep)."""
    broken_by: dict[str, int] = field(default_factory=dict)
    """How many examples each member of an ensemble broke."""
    minimal: bool = False
    """Whether the attack looks for the nearest image, so that it has a distance."""
    median_norm: float | None = None
    """Of attacks for the nearest image: the median distance; None where half were not reached."""
    majority_accuracy: float | None = None
    """Of a randomised model: examples whose most frequent prediction is right."""
    spread: tuple[float, float] | None = None
    """Of a randomised model: the 5 % and 95 % points of the accuracy over single draws."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One command, as it was asked and as it went.  Fields are only ever added."""

    schema: int = SCHEMA
    id: str
    kind: Kind
    status: Status = "started"
    created: datetime
    updated: datetime | None = None
    command: list[str]
    config: dict[str, Any]
    """Every setting that decides the outcome, defaults included."""
    seed: int = 0
    parent: str | None = None
    """The training run that was evaluated."""
    subject: str = ""
    """What a table's row calls it: ``trades+awp``, or the user's own model."""
    dataset: dict[str, Any] = field(default_factory=dict)
    """Name, sizes and sha256 fingerprints of the data that was used."""
    environment: dict[str, Any] = field(default_factory=dict)
    resumed: list[dict[str, Any]] = field(default_factory=list)
    """The environment of each later process that went on with the run."""
    history: list[dict[str, float | int | None]] = field(default_factory=list)
    """One row per epoch."""
    checkpoint: Checkpoint | None = None
    weights: str = ""
    """sha256 of the weights that were evaluated."""
    search: str = ""
    """What an evaluation's attacks searched in: float32, or something faster.  Verdicts are always
    float32's."""
    clean_accuracy: float | None = None
    worst_case_accuracy: float | None = None
    """Examples that no attack of this evaluation broke, per example."""
    n: int | None = None
    attacks: dict[str, Outcome] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)
    """Name and sha256 of the file with one verdict per example."""
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    error: str | None = None


_RUN = TypeAdapter(Run)


def write(run: Run, folder: Path) -> Path:
    """Replace ``run.json`` whole, so a reader never sees half of one."""
    return write_bytes(folder / "run.json", _RUN.dump_json(run, indent=2) + b"\n")


def write_bytes(path: Path, content: bytes) -> Path:
    """Write to a temporary name, flush to the disk, rename."""
    return written(path, lambda part: part.write_bytes(content))


def written(path: Path, save: Callable[[Path], object]) -> Path:
    """Let ``save`` write a temporary file beside ``path``, flush it to the disk, rename it."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        save(part)
        part.chmod(0o666 & ~_umask())  # some writers make private files
        with part.open("rb") as handle:
            os.fsync(handle.fileno())
        return part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def read(path: Path) -> Run:
    """The record in ``path`` (a run's folder or its ``run.json``).

    Raises:
        UserError: it is absent, damaged, or of a newer schema.
    """
    file = path / "run.json" if path.is_dir() else path
    try:
        run = _RUN.validate_json(file.read_bytes())
    except FileNotFoundError:
        raise UserError(f"no run at {str(path)!r}: {file.name} is missing") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{file} is damaged: {where or 'file'}: {first['msg']}") from None
    if run.schema > SCHEMA:
        raise UserError(
            f"{file} has schema {run.schema}, this advbench reads up to {SCHEMA}: upgrade advbench"
        )
    return run


def every(results: Path) -> list[Run]:
    """All runs below ``results``, oldest first; a damaged one is an error that names it."""
    return [run for _, run in folders(results)]


def folders(results: Path) -> list[tuple[Path, Run]]:
    """All runs with the folders they are in, oldest first."""
    found = ((file.parent, read(file)) for file in results.glob("**/run.json"))
    return sorted(found, key=lambda pair: pair[1].created)


def data_name(run: Run) -> str:
    """What tables call the data set: its name, or ``folder:NAME`` without where that is."""
    path = run.config["dataset"].get("path")
    return f"{run.dataset['name']}:{Path(path).name}" if path else str(run.dataset["name"])


def folder_of(name: str | None, results: Path, kind: Kind) -> Path:
    """The folder of the run that ``name`` (an id, an unambiguous part of one, or a path) means.

    Without a name: the latest finished run of this kind.
    """
    given = Path(name) if name is not None else None
    if given and (given / "run.json").is_file():
        return given
    if given and given.is_file():  # the path of a run.json itself
        return given.parent
    if name is not None and (results / name / "run.json").is_file():
        return results / name
    runs = [(folder, run) for folder, run in folders(results) if run.kind == kind]
    if name is None:
        done = [folder for folder, run in runs if run.status == "ok"]
        if not done:
            raise UserError(
                f"no finished {kind} run in {str(results)!r}; train one first, "
                "e.g. advbench train trades, or name one with --run"
            )
        return done[-1]
    matches = [folder for folder, _ in runs if name in folder.name]
    if len(matches) == 1:
        return matches[0]
    if matches:
        choice = ", ".join(folder.name for folder in matches[:4])
        raise UserError(f"run {name!r} is ambiguous in {str(results)!r}: {choice}")
    known = [folder.name for folder, _ in runs]
    raise UserError(f"no {kind} run {name!r} in {str(results)!r}{hint(name, known)}")


def new_folder(results: Path, run_id: str) -> Path:
    """A fresh folder for a run; raise ``UserError`` if it exists or cannot be written."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.+-]*", run_id):
        raise UserError(f"--name {run_id!r}: use letters, digits and . _ + - only")
    folder = results / run_id
    try:
        results.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_writable(results, error) from None
    try:
        folder.mkdir()
    except FileExistsError:
        # Killed between making the folder and writing its record: nothing is in it.
        if all(path.name.startswith(".") for path in folder.iterdir()):
            return folder
        raise UserError(
            f"{str(folder)!r} exists: choose another --name (an interrupted training run goes on "
            f"with: advbench train --resume {run_id}; an evaluation with the same command)"
        ) from None
    except OSError as error:
        raise _not_writable(results, error) from None
    return folder


def _not_writable(results: Path, error: OSError) -> UserError:
    return UserError(
        f"results folder {str(results)!r} is not writable ({error.strerror}); choose another with "
        "--out"
    )


def new_id(subject: str, data: str, seed: int) -> str:
    """``trades-digits-s0-20261120-1832-4f1a``: what it is first, then when, then a random tail."""
    names = re.sub(r":[^+]*", "", subject)  # parameters are in the record
    text = f"{names}-{data}-s{seed}"
    plain = "".join(c if c.isalnum() or c in "+-." else "-" for c in text)
    return f"{plain}-{now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a second process from writing into the same run; the lock dies with the process."""
    with (folder / ".lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"run {folder.name!r} is being written by another process") from None
        yield


@dataclass
class Recorder:
    """A run's record while it is being made."""

    run: Run
    folder: Path
    silent: bool = False
    """Whether another process writes the record."""

    def update(self, **changes: Any) -> None:
        """Change fields and write the record."""
        self.run = replace(self.run, **changes, updated=now())
        if not self.silent:
            write(self.run, self.folder)


@contextmanager
def recording(run: Run, folder: Path) -> Iterator[Recorder]:
    """A record that says how the run went, even when it fails or is interrupted."""
    with locked(folder):
        recorder = Recorder(run, folder)
        recorder.update(status="started", error=None)
        try:
            yield recorder
        except KeyboardInterrupt:
            recorder.update(status="interrupted")
            raise
        except Exception as error:
            recorder.update(status="failed", error=f"{type(error).__name__}: {error}")
            raise
        recorder.update(status="ok")


def now() -> datetime:
    """The time, with its zone."""
    return datetime.now(UTC)


def sha256(path: Path) -> str:
    """The hash of a file's content."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` as they come back from a file: a list where a tuple was."""
    result: dict[str, Any] = json.loads(json.dumps(values))
    return result


def same_but_seed(config: Mapping[str, Any]) -> str:
    """A key that is equal for runs which differ only in their seed."""
    # A preset and the same settings typed by hand are one configuration.
    rest = {key: value for key, value in config.items() if key not in ("seed", "preset")}
    return hashlib.sha256(TypeAdapter(dict[str, Any]).dump_json(rest)).hexdigest()
