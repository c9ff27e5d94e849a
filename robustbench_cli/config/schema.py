"""The settings of training runs and evaluations, validated once.

A *component* (model, dataset, optimizer, schedule) is a table ``{"name": ..., parameters}``;
``defense`` and ``attack`` are tables of such tables, one per part, in the order written.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import product
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from robustbench_cli.config.layers import ConfigTable
from robustbench_cli.core.errors import UserError, hint
from robustbench_cli.core.registry import LARGEST_INTEGER, Number, Seed, Spec
from robustbench_cli.core.threat import Threat

Positive = Annotated[int, Field(ge=1, le=LARGEST_INTEGER)]
TrainPrecision = Literal["auto", "float32", "bf16"]
LearningTask = Literal["classify", "metric"]
Config = TypeVar("Config")

_STRICT = {"extra": "forbid"}


@dataclass(frozen=True, kw_only=True)
class Training:
    """The ``[train]`` section."""

    __pydantic_config__ = _STRICT

    epochs: Positive = 30
    batch_size: Annotated[int, Field(ge=2, le=LARGEST_INTEGER)] = 128
    lr: Annotated[Number, Field(gt=0)] = 0.1
    """The highest learning rate; the schedule multiplies it."""
    eps_warmup: Annotated[Number, Field(ge=0, le=1)] = 0.0
    """Share of the run, in [0, 1], over which the training radius grows linearly from zero."""
    select: Literal["last", "best", "epoch", "oracle"] = "last"
    """The epoch whose weights are kept: the last; the best on the held-out validation split (robust
    accuracy); a fixed epoch; or the best on the test set, which is an oracle no user has."""
    select_epoch: Annotated[int, Field(ge=0)] = 0
    """The epoch that ``select = "epoch"`` keeps, counted from 1."""
    validation: Annotated[int, Field(ge=0)] = 0
    """Training examples held out, never trained on."""
    extra_share: Annotated[Number, Field(ge=0, le=1)] = 0.5
    """Share of each batch that comes from the extra data, if any; 0: nothing; 1: all, and an epoch
    has as many batches as the data set would fill."""
    extra_labels: Literal["own", "none"] = "own"
    """own: use the labels of the extra data, which must have one for each image; none: ignore them.
    A labeller's predictions replace them."""
    limit: Annotated[int, Field(ge=0)] = 0
    """Train on this many examples only; 0: all."""
    probe: Annotated[int, Field(ge=0)] = 256
    """Training examples whose clean and PGD-10 accuracy are measured after each epoch."""
    collapse: Annotated[Number, Field(gt=0, lt=1)] = 0.2
    """Drop of that PGD-10 accuracy, while accuracy under the training attack rises, that counts as
    catastrophic overfitting."""
    on_collapse: Literal["warn", "stop"] = "warn"
    """Reaction to catastrophic overfitting: warn, or also stop and go back to the epoch before."""
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
class Embedding:
    """The ``[embedding]`` section, of metric learning only."""

    __pydantic_config__ = _STRICT

    dim: Positive = 128
    """Length of an embedding."""
    unit: bool = True
    """Scale embeddings to norm 1."""
    per_class: Annotated[int, Field(ge=2, le=LARGEST_INTEGER)] = 2
    """Images of a class that come together in a batch."""
    split_classes: bool = False
    """Zero-shot: train on the images of the first classes only, retrieve among those of the others;
    of a data set without a test split, too."""
    train_classes: Annotated[int, Field(ge=0)] = 0
    """How many classes these are, from the first; 0: half of them."""


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
    """The second data set that fills up batches; empty: none."""
    parents: dict[str, Any] = field(default_factory=dict)
    """Runs that this one builds on, by role: ``init``, ``labeller``, ``teacher``, ``teacher2``."""
    seed: Seed = 0
    precision: TrainPrecision = "auto"
    preset: str | None = None
    """The preset that settings were taken from; it changes nothing and is kept for the record."""
    task: LearningTask = "classify"
    """What is learned: to tell classes, or (metric) embeddings in which classes are near."""
    embedding: Embedding = field(default_factory=Embedding)

    def __post_init__(self) -> None:
        if self.task == "classify" and self.embedding != Embedding():
            raise ValueError("settings of an embedding go with --task metric")


@dataclass(frozen=True, kw_only=True)
class Subset:
    """Which test images are evaluated, and in which order they are counted from the first."""

    __pydantic_config__ = _STRICT

    classes: tuple[str, ...] = ()
    """Names or numbers of the classes; empty: all."""
    balanced: bool = False
    """Whether the first N have as many images of each class as of any other, to within one; of all
    images as many of each as the rarest class has."""
    shuffle: Seed | None = None
    """Seed of the order; None: the order of the data set."""


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
    """Number of test examples, from the first; 0: all."""
    subset: Subset = field(default_factory=Subset)
    """The test examples that are counted."""
    batch_size: Positive = 256
    """Examples under attack, or noisy copies voting, at a time; verdicts do not depend on it."""
    precision: Literal["exact", "auto"] = "auto"
    """The model that attacks search with: the model itself in float32, or the fastest that can
    be vouched for.  The verdict is always the model's own, in float32."""
    sweep: ConfigTable = field(default_factory=dict)
    """Values of ``eps`` or of ``steps``, by that name, at which every attack is run."""
    certify: ConfigTable = field(default_factory=dict)
    """Certificates by label, in the form of ``attack``."""
    defend: ConfigTable = field(default_factory=dict)
    """Input defenses in front of the model, in order, by label, in the form of ``attack``."""
    source: ConfigTable = field(default_factory=dict)
    """The run (``id`` and ``weights``) on which images are crafted, if not the model itself."""
    reject: ConfigTable = field(default_factory=dict)
    """What rejects images: ``class``, a position among the logits or ``last``; or ``detector``,
    what it was ``fitted`` to (sha256), and ``fpr``.  Empty: nothing."""
    seed: Seed = 0
    within: Annotated[Number, Field(gt=0, le=100)] | None = None
    """Points of accuracy that a series of attacks may leave undecided by trying its last members on
    a part of what stands; None: on all of it."""
    widen: bool = False
    """Whether as many images are taken, of ``n`` at most, as intervals need to be ``within`` points
    to either side."""
    checks: bool = True
    """Whether the numbers are checked, and gradient attacks followed by a control."""
    preset: str | None = None


@dataclass(frozen=True, kw_only=True)
class JointConfig:
    """Everything that decides the outcome of a joint attack."""

    runs: dict[str, str]
    """The sha256 of the weights of each run, by the run's id."""
    transform: ConfigTable
    images: Positive = 1
    """Neighbouring test images that share one perturbation."""
    attack: ConfigTable
    dataset: ConfigTable
    threat: Threat
    n: Annotated[int, Field(ge=0)] = 0
    """How many test images, from the first; 0: all."""
    batch_size: Positive = 256
    """Images under attack at a time; verdicts do not depend on it."""
    seed: Seed = 0

    @property
    def domains(self) -> list[str]:
        """The names of the domains, in the order of the logits of ``Joint``."""
        images = [f"image {i + 1}" for i in range(self.images)]
        several = [part for part in (images, self.runs, self.transform) if len(part) > 1]
        return [" ".join(names) for names in product(*several)]


def validated(cls: type[Config], values: Mapping[str, Any]) -> Config:
    """Return nested values as a validated dataclass.

    Raises:
        UserError: a key is unknown or a value is wrong; the message names the key.
    """
    try:
        return TypeAdapter(cls).validate_python(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        if first["type"] == "unexpected_keyword_argument":
            *parents, leaf = map(str, first["loc"])
            sections = {"train": Training, "threat": Threat, "embedding": Embedding}
            section = sections.get(".".join(parents), cls)
            known = section.__dataclass_fields__  # type: ignore[attr-defined]
            raise UserError(f"unknown setting {where!r}{hint(leaf, known)}") from None
        message = first["msg"].removeprefix("Value error, ")
        given = "" if first["type"] == "value_error" else f", got {first['input']!r}"
        raise UserError(f"{where}{': ' if where else ''}{message}{given}") from None


def as_recorded(config: TrainConfig | EvalConfig | JointConfig) -> ConfigTable:
    """Return a configuration as records keep it: nested tables.

    What only metric learning has is in it only there.  A mask, a subset, an input defense or a
    rejection is in it only if there is one, and ``checks`` only if they were left out: so a record
    of before they existed holds the same configuration, and an unfinished one can be gone on with.
    """
    values = asdict(config)
    if values.get("subset") == asdict(Subset()):
        del values["subset"]
    for section in ("reject", "defend"):
        if not values.get(section, True):
            del values[section]
    if values.get("within", 0) is None:
        del values["within"]
    if not values.get("widen", True):
        del values["widen"]
    if not config.threat.mask:
        del values["threat"]["mask"]
    if values.get("checks"):
        del values["checks"]
    if not is_metric(values):
        for key in ("task", "embedding"):
            values.pop(key, None)
    return values


def is_metric(config: Mapping[str, Any]) -> bool:
    """Return whether a training configuration, or a record's, is one of metric learning."""
    return bool(config.get("task", "classify") != "classify")


def spec_of(table: Mapping[str, Any], label: str = "") -> Spec:
    """Return a component's table as a spec."""
    params = {k: v for k, v in table.items() if k != "name"}
    return Spec(str(table.get("name", label)), params, label)


def specs_of(tables: Mapping[str, Mapping[str, Any]]) -> list[Spec]:
    """Return the parts of a ``defense`` or ``attack`` section as specs, in order."""
    return [spec_of(table, label) for label, table in tables.items()]
