"""The settings in a record, typed: what a run was asked for, whatever version wrote the record.

A section that a record lacks is empty or None here, so records of older versions can be read; a
section that is there and has the wrong shape is an error.  No torch in here: reports start fast.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

from pydantic import AllowInfNan, Field, TypeAdapter, ValidationError

from robustbench_cli.core.errors import UserError

_T = TypeVar("_T")
SettingTable = dict[str, Any]
"""The name and the parameters of one component, as a record holds them."""
Finite = Annotated[float, AllowInfNan(False)]
"""A number that is neither infinite nor NaN."""


class DamagedRecord(UserError):
    """A record whose content is wrong: the run or the file is named, then what is wrong."""

    def __init__(self, where: str, what: str) -> None:
        super().__init__(f"{where} is damaged: {what}")
        self.what = what


@dataclass(frozen=True, kw_only=True)
class RecordedThreat:
    """The norm, the radius for images in [0, 1], and the mask (empty: every pixel may change)."""

    norm: str
    eps: Finite
    mask: str = ""

    @property
    def table(self) -> dict[str, Any]:
        """The entries that a table shows; the mask only where there is one."""
        return {"norm": self.norm, "eps": self.eps} | ({"mask": self.mask} if self.mask else {})


@dataclass(frozen=True, kw_only=True)
class RecordedSource:
    """The training run on whose weights images were crafted; empty: the evaluated model itself."""

    id: str = ""
    weights: str = ""
    """sha256 of the weights."""

    def __bool__(self) -> bool:
        return bool(self.id or self.weights)


@dataclass(frozen=True, kw_only=True)
class RecordedRetrieval:
    """What a retrieval was asked for."""

    radii: list[Finite] = field(default_factory=list)
    """The radii for images in [0, 1]."""
    attacks: dict[str, SettingTable] = field(default_factory=dict)
    """The attacks by label."""


@dataclass(frozen=True, kw_only=True)
class RecordedTraining:
    """The length of a training and how many images it used; None where the record is silent."""

    epochs: int | None = None
    limit: int | None = None
    """The number of training images; 0 or None: all."""


@dataclass(frozen=True, kw_only=True)
class RecordedParent:
    """A run that a training began with, and the sha256 of its weights."""

    run: str = ""
    weights: str = ""


@dataclass(frozen=True, kw_only=True)
class RecordedData:
    """The data that was used: sizes, and sha256 fingerprints of images and labels."""

    name: str | None = None
    test: int | None = None
    """The number of test images."""
    train_sha256: str | None = None
    test_sha256: str | None = None
    extra_sha256: str | None = None
    """Of the extra images of a training, or of the images that a generator drew."""
    shape: SettingTable = field(default_factory=dict)
    """channels, height, width and classes, with the channels' statistics."""


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """The sections of a configuration that tables and figures read."""

    record_id: str
    data: RecordedData
    stated_threat: Annotated[RecordedThreat | None, Field(alias="threat")] = None
    """None where the record states no threat."""
    stated_model: Annotated[SettingTable | None, Field(alias="model")] = None
    stated_dataset: Annotated[SettingTable | None, Field(alias="dataset")] = None
    stated_defense: Annotated[dict[str, SettingTable] | None, Field(alias="defense")] = None
    stated_train: Annotated[RecordedTraining | None, Field(alias="train")] = None
    stated_source: Annotated[RecordedSource | None, Field(alias="source")] = None
    optimizer: SettingTable = field(default_factory=dict)
    schedule: SettingTable = field(default_factory=dict)
    extra: SettingTable = field(default_factory=dict)
    """The data set of extra images; empty: none."""
    parents: dict[str, RecordedParent] = field(default_factory=dict)
    """Runs that a training began with, by role."""
    stated_sweep: Annotated[dict[str, list[Finite]] | None, Field(alias="sweep")] = None
    defend: dict[str, SettingTable] = field(default_factory=dict)
    """Of an evaluation: the input defenses in front of the model, in order, by label."""
    subset: SettingTable = field(default_factory=dict)
    """Of an evaluation: which of the test images were counted; empty: all, in their order."""
    attack: dict[str, SettingTable] = field(default_factory=dict)
    runs: dict[str, str] = field(default_factory=dict)
    """Of a joint attack: the sha256 of each run's weights, by the run's id."""
    transform: dict[str, SettingTable] = field(default_factory=dict)
    detector: dict[str, SettingTable] = field(default_factory=dict)
    generator: dict[str, SettingTable] = field(default_factory=dict)
    embedding: SettingTable = field(default_factory=dict)
    """Of metric learning: the number of dimensions, and whether embeddings have norm 1."""
    retrieve: RecordedRetrieval | None = None
    images: int = 1
    """Of a joint attack: how many images share one perturbation."""
    checks: bool = True
    """False where an evaluation was asked to leave the checks of its numbers out."""

    @property
    def threat(self) -> RecordedThreat:
        """The threat; raise ``DamagedRecord`` where the record states none."""
        return self._required(self.stated_threat, "threat")

    @property
    def model(self) -> SettingTable:
        """The architecture with its parameters; raise ``DamagedRecord`` without one."""
        return self._required(self.stated_model, "model")

    @property
    def model_name(self) -> str:
        """The architecture's name; raise ``DamagedRecord`` without one."""
        return str(self._required(self.model.get("name"), "name"))

    @property
    def dataset(self) -> SettingTable:
        """The data set with its parameters; raise ``DamagedRecord`` without one."""
        return self._required(self.stated_dataset, "dataset")

    @property
    def shape(self) -> SettingTable:
        """The shape of the images; raise ``DamagedRecord`` where the record has none."""
        table = self._required(self.data.shape or None, "shape")
        for key in ("channels", "height", "width", "classes", "mean", "std"):
            value = self._required(table.get(key), key)
            if not isinstance(value, list if key in ("mean", "std") else int):
                what = f"its record's shape has a wrong {key!r}"
                raise DamagedRecord(f"run {self.record_id!r}", what)
        return table

    @property
    def data_path(self) -> str:
        """The path that the data set was read from; empty for a data set known by its name."""
        return str((self.stated_dataset or {}).get("path") or "")

    @property
    def data_name(self) -> str:
        """The data set's recorded name; raise ``DamagedRecord`` without one."""
        return self._required(self.data.name, "name")

    @property
    def test_sha256(self) -> str:
        """The fingerprint of the test images; raise ``DamagedRecord`` without one."""
        return self._required(self.data.test_sha256, "test_sha256")

    @property
    def defense(self) -> Mapping[str, SettingTable]:
        """The parts of the defense by label; empty where the record has none."""
        return self.stated_defense or {}

    @property
    def train(self) -> RecordedTraining:
        """The settings of the training; all None where the record has none."""
        return self.stated_train or RecordedTraining()

    @property
    def source(self) -> RecordedSource:
        """The model that images were crafted on; empty where it is the evaluated model itself."""
        return self.stated_source or RecordedSource()

    @property
    def swept(self) -> str:
        """The parameter that an evaluation varies, ``eps`` or ``steps``; empty for most."""
        return next(iter(self.stated_sweep or ()), "")

    @property
    def behind(self) -> str:
        """The input defenses in words, `` behind lgs, jpeg``, after a model's name; or empty."""
        return f" behind {', '.join(self.defend)}" if self.defend else ""

    @property
    def subset_in_words(self) -> str:
        """Which test images were counted, such as ``classes cat, dog; shuffle 3``; empty: all."""
        known = self.subset
        classes = known.get("classes")
        names = ", ".join(map(str, classes)) if isinstance(classes, list) else ""
        said = [f"classes {names}"] if names else []
        said += ["balanced"] if known.get("balanced") else []
        said += [] if known.get("shuffle") is None else [f"shuffle {known['shuffle']}"]
        return "; ".join(said)

    def _required(self, value: _T | None, name: str) -> _T:
        if value is None:
            raise DamagedRecord(f"run {self.record_id!r}", f"its record has no {name!r}")
        return value


_SETTINGS = TypeAdapter(RunSettings)


def read_settings(
    record_id: str, config: Mapping[str, Any], dataset: Mapping[str, Any]
) -> RunSettings:
    """The typed settings of a record.

    Args:
        record_id: the run's id, which errors name.
        config: the record's ``config``.
        dataset: the record's ``dataset``.

    Raises:
        DamagedRecord: a section has the wrong shape.
    """
    sections = {name: value for name, value in config.items() if name not in ("record_id", "data")}
    try:
        return _SETTINGS.validate_python({**sections, "record_id": record_id, "data": dataset})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise DamagedRecord(
            f"run {record_id!r}", f"its record's {place!r} is wrong: {first['msg']}"
        ) from None
