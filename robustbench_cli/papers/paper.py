"""A paper's numbers, typed, and what its words mean in advbench's terms."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from robustbench_cli.core.errors import UserError, hint
from robustbench_cli.core.registry import Number, Spec
from robustbench_cli.papers.publication import Publication

_STRICT = {"extra": "forbid"}
Texts = Annotated[
    tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)
]
"""One text, or several."""

Unit = Literal["%", "share", ""]
"""How a paper prints a quantity: ``%``, a share in per cent; ``share``, a share of 1 as it is;
nothing: it is no share, a distance or a cosine, and is printed as it is."""

PaperCell = tuple[object, ...]
"""The place of a number in a paper."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """One number of a paper: a line of its CSV file, in the paper's own words."""

    table: str
    method: str
    dataset: str
    architecture: str = ""
    """Nothing where the paper does not say."""
    norm: str = ""
    epsilon: Number | None = None
    attack: str = ""
    """Nothing for images as they are."""
    attack_params: str = ""
    """The stated parameters of the attack, ``key=value`` with semicolons; steps in pixel values."""
    metric: str
    value: Decimal
    """With the digits that were printed."""
    std: Decimal | None = None
    note: str = ""

    @property
    def params(self) -> dict[str, str]:
        """The stated parameters of the attack by name."""
        pairs = (pair.partition("=") for pair in self.attack_params.split(";") if pair)
        return {key: value for key, _, value in pairs}

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks on this number, each by itself."""
        return tuple(filter(None, (part.strip() for part in _REMARK.split(self.note))))

    @property
    def place(self) -> PaperCell:
        """Everything but the number itself: no two of a paper stand in one place."""
        return tuple(getattr(self, name) for name in CSV_COLUMNS if name not in _NUMBERS)


CSV_COLUMNS = tuple(each.name for each in fields(Published))
_NUMBERS = ("value", "std", "note")
_REMARK = re.compile(r";(?![^()]*\))")  # a semicolon inside brackets ends nothing


@dataclass(frozen=True, kw_only=True)
class Metric:
    """The quantity that a column of numbers measures."""

    __pydantic_config__ = _STRICT

    title: str
    counts: str = ""
    """``clean`` or ``robust`` accuracy, or what ``differences.attack`` knows beside them; nothing:
    advbench does not measure it, or does not compare it."""
    recorded: str = ""
    """Of retrieval: what records of ``advbench retrieve`` call the measure."""
    unit: Unit = "%"
    """Means nothing where advbench does not measure it."""
    error: bool = False
    """True if it is an error: 100 % less the accuracy."""
    select: str = ""
    """The rule for the epoch, as in ``train.select``; nothing where the paper does not say."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """A data set of tables, as advbench knows it."""

    __pydantic_config__ = _STRICT

    name: str
    copies: str = ""
    """A regular expression: what folders with copies of it are called."""
    shape: tuple[int, ...] = ()
    """Channels, height, width and classes: a copy has them, too."""
    test_sha256: str = ""
    """The fingerprint of the test split, where it is known."""


@dataclass(frozen=True, kw_only=True)
class Network:
    """An architecture of tables."""

    __pydantic_config__ = _STRICT

    write: str
    """The value of ``--model``."""
    means: str
    """The same with its sizes, as records hold it."""


@dataclass(frozen=True, kw_only=True)
class Words:
    """Words that mean the same in every paper."""

    __pydantic_config__ = _STRICT

    metrics: Mapping[str, Metric]
    datasets: Mapping[str, Data]
    models: Mapping[str, Network]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """The training of some rows; of several rules that fit, later ones win key by key."""

    __pydantic_config__ = _STRICT

    rows: Mapping[str, Texts] = field(default_factory=dict)
    """The rows that it is about: columns of the CSV file, each with the texts it may hold."""
    defense: str | None = None
    """The defense of these rows, where it is not the paper's usual one."""
    inner: str | None = None
    """Parameters of the objective: ``steps=10,step=7/31``."""
    eps: Number | None = None
    """The radius of training, where it is not the one that the table states."""
    epochs: int | None = None
    extra: str | None = None
    """The additional training data."""
    embedding: str | None = None
    """Of metric learning: what embeddings are like, ``dim=512,unit=true``."""
    recorded: str | None = None
    """What records call the measure, where these rows mean another one by the metric's name."""
    unit: Unit | None = None
    """How these rows print their numbers, where it is not the metric's usual way."""
    preset: str | None = None
    """The preset with the whole recipe, used where it is there.  ``{method}``, ``{dataset}`` and
    ``{norm}`` stand for the row's, in lower case."""
    options: Texts | None = None
    """Further words for ``advbench train``."""
    measure: Texts | None = None
    """The words after ``advbench``, by line, where another command than ``eval`` measures it."""
    lacking: str | None = None
    """Why it cannot be had here, where nothing else in these files tells."""

    def fits(self, cell: Published) -> bool:
        """Return True if the rule is about this number's row."""
        return all(getattr(cell, column) in texts for column, texts in self.rows.items())


@dataclass(frozen=True, kw_only=True)
class Meaning:
    """The training and the evaluation behind a number, in advbench's terms."""

    method: tuple[Spec, ...]
    """Nothing: there is no such method here."""
    inner: Mapping[str, Any]
    """Parameters of its objective that are not part of what the method is called."""
    dataset: Data | None
    model: Network | None
    attacks: tuple[Spec, ...]
    """The attacks that may stand for the paper's, the best first, with their stated parameters."""
    source: tuple[Spec, ...]
    """The defense of the model that images were crafted on, where it was another one."""
    metric: Metric
    recorded: str = ""
    """Of retrieval: what records of ``advbench retrieve`` call the measure."""
    unit: Unit = "%"
    embedding: Mapping[str, Any] = field(default_factory=dict)
    """Of metric learning: what embeddings are like."""
    eps: float | None = None
    """The radius of training."""
    epochs: int | None = None
    extra: str = ""
    preset: str = ""
    options: tuple[str, ...] = ()
    measure: tuple[str, ...] = ()
    """The commands that measure it, where that is not ``eval``."""
    lacking: str = ""
    """Why it cannot be had here, if the paper's files say so."""

    @property
    def defense(self) -> tuple[Spec, ...]:
        """The method with all its parameters."""
        return tuple(
            Spec(spec.name, spec.params if place else {**spec.params, **self.inner, **spec.params})
            for place, spec in enumerate(self.method)
        )


@dataclass(frozen=True, kw_only=True)
class Paper(Publication):
    """A paper's numbers, and the meaning of its words."""

    __pydantic_config__ = _STRICT

    aliases: tuple[str, ...] = ()
    methods: Mapping[str, str] = field(default_factory=dict)
    """The defense of advbench by the paper's name of a method."""
    attacks: Mapping[str, Texts] = field(default_factory=dict)
    """The attack of advbench, or several that may stand for it, by the paper's name."""
    rules: tuple[Rule, ...] = ()
    cells: tuple[Published, ...] = ()
    words: Words

    @property
    def tables(self) -> list[str]:
        """The names of the tables, in order."""
        return list(dict.fromkeys(cell.table for cell in self.cells))

    def only(self, table: str | None) -> tuple[Published, ...]:
        """The numbers of one table, or all; raise ``UserError`` for a table that is not there."""
        if table is None:
            return self.cells
        wanted = table.strip().lower()
        found = tuple(cell for cell in self.cells if cell.table.lower() == wanted)
        if not found:
            raise UserError(f"paper {self.name!r} has no table {table!r}{hint(table, self.tables)}")
        return found

    def meaning(self, cell: Published) -> Meaning:
        """Return the training and the evaluation that this number takes."""
        settings: dict[str, Any] = {"defense": self.methods.get(cell.method, ""), "inner": ""}
        metric = self.words.metrics[cell.metric]
        settings |= {"eps": cell.epsilon, "preset": "", "embedding": ""}
        settings |= {"recorded": metric.recorded, "unit": metric.unit}
        for rule in self.rules:
            if rule.fits(cell):
                stated = {each.name: getattr(rule, each.name) for each in fields(rule)}
                settings |= {k: v for k, v in stated.items() if v is not None and k != "rows"}
        source = self.methods.get(cell.params.get("source", ""), "")
        data = self.words.datasets.get(cell.dataset)
        row = {"method": cell.method, "dataset": data.name if data else "", "norm": cell.norm}
        named = settings.pop("preset").format_map({k: v.lower() for k, v in row.items()})
        return Meaning(
            preset=named,
            method=tuple(defense_specs(settings.pop("defense"))),
            inner=Spec.parse(f"inner:{settings.pop('inner')}").params,
            embedding=Spec.parse(f"embedding:{settings.pop('embedding')}").params,
            dataset=data,
            model=self.words.models.get(cell.architecture),
            attacks=tuple(_attack(text, cell) for text in self.attacks.get(cell.attack, ())),
            source=tuple(defense_specs(source)),
            metric=metric,
            **settings,
        )


def defense_specs(text: str) -> list[Spec]:
    """``trades:beta=6+awp`` part by part; nothing for nothing."""
    return [Spec.parse(part) for part in re.split(r"\+(?=[A-Za-z])", text) if part]


_PASSED_ON = ("steps", "step", "start", "restarts", "version", "climbs")
"""Parameters of an attack that tables state under advbench's own names."""


def _attack(text: str, cell: Published) -> Spec:
    """An attack with what is stated of it; its step as a fraction of the radius."""
    spec = Spec.parse(text)
    given = {key: value for key, value in cell.params.items() if key in _PASSED_ON}
    step = given.pop("step", None)
    if step and cell.epsilon:
        given["step"] = ratio(float(Fraction(step)) / cell.epsilon)
    return Spec(spec.name, {**given, **spec.params, **given})


def ratio(number: float) -> str:
    """``3/31`` where that is what was meant, else the number."""
    near = Fraction(number).limit_denominator(1000)
    return str(near) if abs(float(near) - number) < 1e-9 else f"{number:g}"
