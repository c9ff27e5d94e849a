"""What a run is asked to do: data set's defaults < preset < command line, validated once.

A *component* (model, dataset, optimizer, schedule) is a table ``{"name": ..., parameters}``;
``defense`` and ``attack`` are tables of such tables, one per part, in the order written.
"""

import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from robustbench_cli.core.errors import UserError, hint
from robustbench_cli.core.registry import Number, Seed, Spec
from robustbench_cli.core.threat import Threat

ConfigTable = dict[str, Any]
Positive = Annotated[int, Field(ge=1)]
TrainPrecision = Literal["auto", "float32", "bf16"]
Config = TypeVar("Config")

MANY = ("defense", "attack")
"""Sections that hold several components."""
ONE = ("model", "dataset", "optimizer", "schedule", "extra")
"""Sections that hold one."""

_STRICT = {"extra": "forbid"}


@dataclass(frozen=True, kw_only=True)
class Training:
    """The ``[train]`` section."""

    __pydantic_config__ = _STRICT

    epochs: Positive = 30
    batch_size: Annotated[int, Field(ge=2)] = 128
    lr: Annotated[Number, Field(gt=0)] = 0.1
    """The highest learning rate; the schedule multiplies it."""
    eps_warmup: Annotated[Number, Field(ge=0, le=1)] = 0.0
    """Share of the run over which the training radius grows linearly from zero."""
    select: Literal["last", "best", "epoch", "oracle"] = "last"
    """Which epoch's weights are kept: last; best on the held-out validation split (robust
    accuracy); a fixed epoch; or best on the test set, which is an oracle no user has."""
    select_epoch: Annotated[int, Field(ge=0)] = 0
    """The epoch that ``select = "epoch"`` keeps, counted from 1."""
    validation: Annotated[int, Field(ge=0)] = 0
    """Training examples held out, never trained on."""
    extra_share: Annotated[Number, Field(ge=0, le=1)] = 0.5
    """How much of each batch comes from the extra data, where there is any; 0: nothing; 1: all, and
    an epoch has as many batches as the data set would fill."""
    extra_labels: Literal["own", "none"] = "own"
    """Whether labels that extra data brings are used, which must then have one for each image; a
    labeller's replace them."""
    limit: Annotated[int, Field(ge=0)] = 0
    """Train on this many examples only; 0: all."""
    probe: Annotated[int, Field(ge=0)] = 256
    """Training examples whose clean and PGD-10 accuracy are measured after each epoch."""
    collapse: Annotated[Number, Field(gt=0, lt=1)] = 0.2
    """How far that PGD-10 accuracy must fall, while accuracy under the training attack rises, to
    count as catastrophic overfitting."""
    on_collapse: Literal["warn", "stop"] = "warn"
    """What to do then: say so, or also stop and go back to the epoch before."""
    deterministic: bool = False
    """Ask torch for deterministic algorithms only, on a GPU, too (``CUBLAS_WORKSPACE_CONFIG``)."""

    def __post_init__(self) -> None:
        if self.select == "oracle" and self.validation:
            raise ValueError("select='oracle' looks at the test set; leave validation out")
        if self.select == "best" and not self.validation:
            raise ValueError("select='best' needs a validation split: train.validation=1000")
        if self.select == "epoch" and not 1 <= self.select_epoch <= self.epochs:
            raise ValueError(
                f"select='epoch' needs select_epoch in 1..{self.epochs}, got {self.select_epoch}"
            )
        if self.on_collapse == "stop" and not self.probe:
            raise ValueError("on_collapse='stop' looks at training images: train.probe=256")
        if self.on_collapse == "stop" and self.select == "epoch":
            raise ValueError("on_collapse='stop' may come before the epoch that is to be kept")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that decides the outcome of a training run."""

    __pydantic_config__ = _STRICT

    defense: ConfigTable
    dataset: ConfigTable
    model: ConfigTable
    optimizer: ConfigTable
    schedule: ConfigTable
    threat: Threat
    train: Training = field(default_factory=Training)
    extra: ConfigTable = field(default_factory=dict)
    """The data set that fills batches up, if there is one."""
    parents: dict[str, Any] = field(default_factory=dict)
    """Runs that this one builds on, by role: ``init``, ``labeller``, ``teacher``, ``teacher2``."""
    seed: Seed = 0
    precision: TrainPrecision = "auto"
    preset: str | None = None
    """Where the settings came from; kept for the record."""


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """Everything that decides the outcome of an evaluation."""

    __pydantic_config__ = _STRICT

    attack: ConfigTable
    dataset: ConfigTable
    model: ConfigTable
    defense: ConfigTable = field(default_factory=dict)
    threat: Threat
    n: Annotated[int, Field(ge=0)] = 0
    """How many test examples, from the first; 0: all."""
    batch_size: Positive = 256
    """Examples under attack, or noisy copies voting, at a time; verdicts do not depend on it."""
    precision: Literal["exact", "auto"] = "auto"
    """What attacks search with: the model itself in float32, or the fastest that can be vouched
    for.  The verdict is always the model's own, in float32."""
    sweep: ConfigTable = field(default_factory=dict)
    """Values of ``eps`` or ``steps`` at which every attack is run."""
    certify: ConfigTable = field(default_factory=dict)
    """Certificates, as attacks are listed."""
    source: ConfigTable = field(default_factory=dict)
    """The run (``id`` and ``weights``) on which images are crafted, if not the model itself."""
    seed: Seed = 0
    preset: str | None = None


def validated(cls: type[Config], values: Mapping[str, Any]) -> Config:
    """``values`` as a configuration; raise ``UserError`` that names the key and what is wrong."""
    try:
        return TypeAdapter(cls).validate_python(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        if first["type"] == "unexpected_keyword_argument":
            *parents, leaf = map(str, first["loc"])
            section = {"train": Training, "threat": Threat}.get(".".join(parents), cls)
            known = section.__dataclass_fields__  # type: ignore[attr-defined]
            raise UserError(f"unknown setting {where!r}{hint(leaf, known)}") from None
        message = first["msg"].removeprefix("Value error, ")
        given = "" if first["type"] == "value_error" else f", got {first['input']!r}"
        raise UserError(f"{where}{': ' if where else ''}{message}{given}") from None


def as_recorded(config: TrainConfig | EvalConfig) -> ConfigTable:
    """A configuration as records keep it: a mask only where there is one."""
    values = asdict(config)
    if not config.threat.mask:
        del values["threat"]["mask"]
    return values


def merged(*layers: Mapping[str, Any]) -> ConfigTable:
    """Later layers win, key by key.

    A component that changes its name drops the parameters of the one before; naming the same
    one keeps them.  For ``defense`` and ``attack`` the last layer that lists parts decides which
    there are.  A radius goes with its norm: a layer that changes the norm drops it.
    """
    result: ConfigTable = {}
    for layer in layers:
        for section, value in layer.items():
            before = result.get(section, {})
            if section in MANY:
                result[section] = {
                    label: _component(_named(before, part, label), part)
                    for label, part in value.items()
                }
            elif section in COMBINE:
                result[section] = COMBINE[section](before, value)
            else:
                result[section] = value
    return result


def refined(values: ConfigTable, changes: Mapping[str, Any]) -> ConfigTable:
    """``values`` with single settings replaced: what ``--set`` does.

    Raises:
        UserError: it names a part of a defense that is not there.
    """
    result = merged(values, {k: v for k, v in changes.items() if k not in MANY})
    for section in {*MANY} & {*changes}:
        known = result.get(section, {})
        for label, part in changes[section].items():
            if label not in known:
                raise UserError(f"--set {section}.{label}: no such part{hint(label, known)}")
            known[label] = {**known[label], **part}
    return result


def _component(before: Mapping[str, Any], after: Mapping[str, Any]) -> ConfigTable:
    same = after.get("name", before.get("name")) == before.get("name")
    return {**before, **after} if same else dict(after)


def _threat(before: Mapping[str, Any], after: Mapping[str, Any]) -> ConfigTable:
    norms = [str(table.get("norm", "Linf")).lower() for table in (before, after)]
    changed = "norm" in after and "eps" not in after and norms[0] != norms[1]
    return {**{k: v for k, v in before.items() if not (changed and k == "eps")}, **after}


def _named(parts: Mapping[str, Any], wanted: Mapping[str, Any], label: str) -> ConfigTable:
    """The part that ``wanted`` refines: the same component under any label, else nothing."""
    name = wanted.get("name", label)
    same = (p for key, p in parts.items() if p.get("name", key) == name)
    return {"name": name, **next(same, {})}


COMBINE: Mapping[str, Callable[[Mapping[str, Any], Mapping[str, Any]], ConfigTable]] = {
    **dict.fromkeys(ONE, _component),
    "threat": _threat,
    "train": lambda before, after: {**before, **after},
}
"""How a later layer's table goes over an earlier one's."""


def _shaped(values: ConfigTable, where: str) -> ConfigTable:
    """The same values; raise ``UserError`` where a section is no table or a setting is one."""
    for section, value in values.items():
        table = isinstance(value, Mapping)
        parts = value.values() if section in MANY and table else ()
        if section in (*MANY, *COMBINE) and not (table and all(map(_is_table, parts))):
            raise UserError(
                f"{where}: {section!r} holds settings, got {value!r}; write {section}.KEY=VALUE "
                f"or a table [{section}]"
            )
        if table and section not in (*MANY, *COMBINE):
            raise UserError(f"{where}: there is no section {section!r}{hint(section, SECTIONS)}")
    return values


def _is_table(value: object) -> bool:
    return isinstance(value, Mapping)


SECTIONS = (*MANY, *COMBINE)


def read_preset(path: Path) -> ConfigTable:
    """A preset's tables; raise ``UserError`` naming the file and the line if it is damaged."""
    try:
        values = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"preset {str(path)!r} does not exist") from None
    except OSError as error:
        raise UserError(f"preset {str(path)!r} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"preset {str(path)!r} is not valid TOML: {error}") from None
    _shaped(values, f"preset {str(path)!r}")
    for section in MANY:
        for label, part in values.get(section, {}).items():
            part.setdefault("name", label)
    return {**values, "preset": path.stem}


def settings(pairs: Iterable[str]) -> ConfigTable:
    """``["train.lr=0.05", "seed=1"]`` as nested tables; values stay strings for validation."""
    values: ConfigTable = {}
    for pair in pairs:
        key, eq, value = pair.partition("=")
        if not eq or not key.strip():
            raise UserError(f"--set {pair!r}: expected key=value, e.g. --set train.lr=0.05")
        *parents, leaf = key.strip().split(".")
        table = values
        for name in parents:
            table = table.setdefault(name, {})
            if not isinstance(table, dict):
                raise UserError(f"--set {pair}: {name!r} was given a value before")
        table[leaf] = _literal(value.strip())
    return _shaped(values, "--set")


def _literal(text: str) -> Any:
    """TOML's reading of lists and booleans; everything else stays text."""
    if text.startswith("[") or text in ("true", "false"):
        try:
            return tomllib.loads(f"v = {text}")["v"]
        except tomllib.TOMLDecodeError:
            return text
    return text


def spec_of(table: Mapping[str, Any], label: str = "") -> Spec:
    """A component's table as a spec."""
    params = {k: v for k, v in table.items() if k != "name"}
    return Spec(str(table.get("name", label)), params, label)


def specs_of(tables: Mapping[str, Mapping[str, Any]]) -> list[Spec]:
    """The parts of a ``defense`` or ``attack`` section, in order."""
    return [spec_of(table, label) for label, table in tables.items()]
