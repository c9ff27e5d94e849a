"""In what a measurement made here differs in setting from a published number.

Only what the paper is known to have done is compared, and only what the record tells.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import isclose
from pathlib import Path
from typing import Any, NamedTuple

from robustbench_cli.config.catalogue import typed
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat_text import format_eps
from robustbench_cli.papers.paper import Data, Meaning, Network, Published, defense_specs, ratio
from robustbench_cli.report.statistics import Cell
from robustbench_cli.report.withheld import WithheldNumber
from robustbench_cli.runs.records import Run, data_name


class SettingDifference(NamedTuple):
    """One thing in which a setting is not the paper's."""

    what: str
    ours: str
    theirs: str

    def __str__(self) -> str:
        return f"{self.what} {self.ours} ({self.theirs})"


@dataclass(frozen=True, kw_only=True)
class MeasuredAccuracy:
    """A number, mostly an accuracy, of a model that was trained here, seeds joined."""

    accuracy: Cell | WithheldNumber
    """Shares between 0 and 1; of retrieval also distances and cosines, as they are."""
    params: Mapping[str, Any]
    """The attack's; nothing for images as they are."""
    norm: str
    eps: float
    mask: str = ""
    """The mask of the pixels that could change; empty: all of them."""
    within: str | None = None
    """Of a certificate: the ball, as ``Linf=2/255``, or nothing for its predictions as such."""
    source: Run | None = None
    """The training run of the model that images were crafted on, if it was another one."""
    detector: str = ""
    """Of an AUROC: what told wrong answers from right ones; nothing: it is an accuracy."""
    population: str = ""
    """Of an AUROC: which images count."""
    measure: str = ""
    """Of retrieval: what the record calls it; nothing: it is an accuracy or an AUROC."""
    better: str = ""
    """Of retrieval: which direction is better for the model, ``higher`` or ``lower``."""
    notes: tuple[str, ...] = ()
    """What is to be known of it; where it is withheld, why."""
    run: Run
    """The latest evaluation that it is from."""
    trained: Run
    """The training run; of several seeds the last."""


def method(defense: Sequence[Spec], trained: Run) -> list[SettingDifference] | None:
    """Parameters of the method that differ; None if it is another method."""
    tables = {
        str(table.get("name", label)): table for label, table in trained.settings.defense.items()
    }
    if {spec.name for spec in defense} != {*tables}:
        return None
    return [
        each
        for place, spec in enumerate(defense)
        for each in _params(tables[spec.name], spec.params, f"{spec.name} " if place else "")
    ]


def recipe_differences(meaning: Meaning, trained: Run) -> list[SettingDifference] | None:
    """Parameters of the method and of its embeddings that differ; None if it is another method."""
    apart = method(meaning.defense, trained)
    if apart is None:
        return None
    return [*apart, *_params(trained.settings.embedding, meaning.embedding, "embedding ")]


def training_differences(
    cell: Published, meaning: Meaning, trained: Run, run: Run | None = None
) -> list[SettingDifference] | None:
    """Return the other differences in the training; None if the two are not comparable.

    Args:
        trained: the training run.
        run: the evaluation, which may have used other data.
    """
    settings = trained.settings
    data = data_differences(meaning.dataset, trained, run or trained) if meaning.dataset else None
    threat = settings.stated_threat
    attacked = any(_TELL_A_RADIUS & {*table} for table in settings.defense.values())
    extra = settings.extra
    # What else a model was trained on, and what it was trained from, make another method of it.
    begun = "init" in settings.parents
    if bool(extra) != bool(meaning.extra) or begun != ("--init" in meaning.options):
        return None
    if data is None or (attacked and threat and cell.norm not in ("", threat.norm)):
        return None
    rule = trained.checkpoint.rule if trained.checkpoint else ""
    pairs = [
        ("epochs", settings.train.epochs, meaning.epochs),
        ("training images", settings.train.limit or None, "all"),
        ("trained at eps", threat.eps if attacked and threat else None, meaning.eps),
        ("trained with mask", (threat.mask or None) if attacked and threat else None, "none"),
        ("extra data", extra.get("path", extra.get("name")), meaning.extra or None),
        ("epoch kept", _KEPT.get(rule, rule) or None, _kept(rule, meaning.metric.select)),
    ]
    return [*data, *_model(settings.model, meaning.model, cell.architecture), *_unequal(pairs)]


_TELL_A_RADIUS = {"steps", "stretch"}
"""Parameters of what attacks or bounds a ball in training; a radius means nothing to the rest."""
_KEPT = {"oracle": "best on test", "best": "best held out", "epoch": "chosen"}


def _kept(rule: str, select: str) -> str | None:
    """Return the paper's epoch; where it does not say, only the oracle's choice counts."""
    return _KEPT.get(select, select) or ("not said" if rule == "oracle" else None)


def attack_differences(
    cell: Published, meaning: Meaning, each: MeasuredAccuracy
) -> list[SettingDifference] | None:
    """Return the differences in the evaluation; None if it is not the same measurement."""
    alike = [spec for spec in meaning.attacks if spec.name == each.params.get("name")]
    source = _source(meaning, each)
    attacked = bool(alike) and each.within is None and cell.norm in ("", each.norm)
    same = {
        "clean": not each.params and not each.measure,
        "robust": attacked and source is not None and not each.detector and not each.measure,
        "detected": attacked and bool(each.detector),
        "retrieved": bool(each.measure)
        and each.measure == meaning.recorded
        and (attacked if cell.attack else not each.params),
        "smoothed": bool(alike) and each.within == "",
        "certified": bool(alike) and each.within == certified_ball(cell),
    }
    if not same.get(meaning.metric.counts):
        return None
    # A paper that says nothing of restarts made one.
    found = _params(each.params, {"restarts": "1", **alike[0].params}) if alike else []
    reach = [("eps", each.eps, cell.epsilon), ("mask", each.mask or None, "none")] * attacked
    judged = [
        ("queries" if each.measure else "images", each.run.n, each.run.settings.data.test),
        # Papers say neither, and both move the figure.
        ("detector", each.detector or None, "not said"),
        ("counted", each.population or None, "not said"),
    ]
    return [*_unequal(reach), *found, *(source or ()), *_unequal(judged)]


def _source(meaning: Meaning, each: MeasuredAccuracy) -> list[SettingDifference] | None:
    """Return the differences in the source of a transfer attack; None if it is not comparable."""
    if each.source is None:
        return None if meaning.source else []
    apart = method(meaning.source, each.source)
    return apart and [one._replace(what=f"source {one.what}") for one in apart]


def certified_ball(cell: Published) -> str:
    """Return the name, as columns have it, of the ball in which a number is certified."""
    return f"{cell.norm}={format_eps(cell.epsilon or 0)}"


def _params(
    ours: Mapping[str, Any], stated: Mapping[str, str], before: str = ""
) -> list[SettingDifference]:
    return [
        SettingDifference(
            before + _CALLED.get(key, key), _shown(key, ours[key]), _shown(key, value)
        )
        for key, value in stated.items()
        if key in ours and not _same(ours[key], value)
    ]


_CALLED = {"last_iterate": "iterate", "step": "step/eps"}
"""Parameters whose names alone say too little."""
_SAID = {("last_iterate", "true"): "last", ("last_iterate", "false"): "any"}


def _shown(key: str, value: object) -> str:
    # Steps are stated as fractions of the radius; the rest as people type it.
    text = ratio(value) if key == "step" and isinstance(value, float) else typed(value)
    return _SAID.get((key, text), text)


def _same(ours: object, stated: object) -> bool:
    try:
        return isclose(float(Fraction(str(ours))), float(Fraction(str(stated))), rel_tol=1e-6)
    except ValueError:
        return typed(ours) == typed(stated)


def _unequal(pairs: Sequence[tuple[str, Any, Any]]) -> list[SettingDifference]:
    """Return the settings that are known on both sides and differ."""
    return [
        SettingDifference(what, _size(ours), _size(theirs))
        for what, ours, theirs in pairs
        if ours is not None and theirs is not None and not _same(ours, theirs)
    ]


def _size(value: object) -> str:
    return format_eps(value) if isinstance(value, float) else typed(value)


def data_differences(data: Data, trained: Run, run: Run) -> list[SettingDifference] | None:
    """Return nothing if the model was trained and tried on this very set; None if on another one.

    A copy of the set, such as one from JPEG files, is a difference.
    """
    if not all(_is(data, each, trained) for each in (trained, run)):
        return None
    copies = [each for each in (trained, run) if not _very(data, each)]
    # The name of a copy says which of its images were counted.
    told = [run] if run.settings.subset_in_words else copies
    return [SettingDifference("data", data_name(told[0]), data.name)] if told else []


def _very(data: Data, run: Run) -> bool:
    mark = run.settings.data.test_sha256
    return run.settings.data_name == data.name or bool(mark and mark == data.test_sha256)


def _is(data: Data, run: Run, trained: Run) -> bool:
    """Return True if a run used the set, or a copy of it with its name and its shape."""
    table = trained.settings.data.shape
    shape = tuple(table[key] for key in ("channels", "height", "width", "classes") if key in table)
    called = Path(run.settings.data_path).name
    alike = re.search(data.copies, called, re.IGNORECASE) if data.copies else None
    return _very(data, run) or bool(alike and shape in ((), data.shape))


def _model(
    table: Mapping[str, Any], wanted: Network | None, architecture: str
) -> list[SettingDifference]:
    """Return the differences in the architecture; its whole numbers are its sizes."""
    sizes = ",".join(f"{k}={v}" for k, v in table.items() if type(v) is int)
    ours = f"{table['name']}:{sizes}" if sizes else table["name"]
    if not architecture:
        return []
    if wanted:
        (spec,) = defense_specs(wanted.means)
        if spec.name == table["name"]:
            return _params(table, spec.params, "model ")
    return [SettingDifference("model", ours, architecture)]
