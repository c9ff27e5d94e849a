"""The commands that would produce a paper's numbers, or what is lacking for them."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from robustbench_cli.config import catalogue, presets
from robustbench_cli.config.catalogue import Item
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat_text import format_eps
from robustbench_cli.papers.paper import Meaning, Published
from robustbench_cli.runs.records import Run

Wanted = tuple[Published, Meaning]
"""A number and what it means here."""

CHEAPEST = "fgsm"
"""An evaluation names an attack, also where only the clean accuracy is wanted."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """Everything that can be named on the command line."""

    defenses: Mapping[str, Item]
    attacks: Mapping[str, Item]
    certificates: Mapping[str, Item]
    presets: frozenset[str]

    @classmethod
    def scan(cls) -> "Known":
        """Return what is registered now."""
        kinds = ("defenses", "attacks", "certificates")
        named = {kind: {item.name: item for item in catalogue.scan(kind)} for kind in kinds}
        # Metric learning has defenses of its own, which a preset tells to be such.
        named["defenses"] |= {item.name: item for item in catalogue.scan("metric-defenses")}
        return cls(**named, presets=frozenset(presets.preset_names()))

    def attack(self, meaning: Meaning) -> Spec | None:
        """The first that is there of what may stand for a number's attack, or its certificate."""
        known = {*self.attacks, *self.certificates}
        return next((spec for spec in meaning.attacks if spec.name in known), None)


def lacking(cell: Published, meaning: Meaning, known: Known) -> str:
    """Why advbench cannot produce a number; nothing if it can."""
    named = dict.fromkeys(spec.name for spec in (*meaning.method, *meaning.source))
    unknown = [name for name in named if name not in known.defenses]
    robust = meaning.metric.counts not in ("", "clean", "retrieved")
    asked = next(iter(meaning.attacks), None)
    measured = meaning.metric.counts or meaning.measure
    # A preset brings its own net, and the report tells how it departs.
    net = meaning.model or not cell.architecture or meaning.preset in known.presets
    reasons = {
        meaning.lacking: bool(meaning.lacking),
        f"{meaning.metric.title} is not measured here": not measured,
        f"no data set {cell.dataset} here": meaning.dataset is None,
        "no such method here": not meaning.method,
        f"not here yet: {', '.join(unknown)}": bool(unknown),
        f"no model {cell.architecture} here": not net,
        "no such attack here": robust and asked is None,
        f"not here yet: {asked and asked.name}": robust and known.attack(meaning) is None,
        f"no {cell.params.get('source')} here to craft images on": bool(
            "source" in cell.params and not meaning.source
        ),
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def commands(wanted: Sequence[Wanted], known: Known, trained: Run | None = None) -> list[str]:
    """Shell lines that measure numbers which nothing is lacking for.

    Args:
        wanted: numbers of one model.
        trained: the run that holds the model; without one it is trained first.
    """
    lines = [] if trained else [training_command(*wanted[0], known)]
    of = ["--run", trained.id] if trained else []
    stated = dict.fromkeys(line for _, meaning in wanted for line in meaning.measure)
    lines += [shlex.join(["advbench", *line.split(), *of]) for line in stated]
    rest = [pair for pair in wanted if not pair[1].measure]

    def setting(pair: Wanted) -> tuple[str, ...]:
        cell, meaning = pair
        stated = trained.settings.stated_threat if trained else None
        defaults = (stated.norm, stated.eps) if stated else (cell.norm, meaning.eps)
        words = _threat(cell.norm, cell.epsilon, defaults)
        return *words, *(("--source", meaning.source[0].name) if meaning.source else ())

    for words, pairs in groupby(sorted(rest, key=setting), setting):
        specs = [known.attack(meaning) for _, meaning in pairs]
        texts = dict.fromkeys(_attack(spec, known) for spec in specs if spec)
        named = [word for pair in texts or [("--attack", CHEAPEST)] for word in pair]
        lines.append(shlex.join(["advbench", "eval", *of, *named, *words]))
    return lines


def training_command(cell: Published, meaning: Meaning, known: Known) -> str:
    """The shell line that trains the model of a number."""
    words = ["advbench", "train"]
    if meaning.preset in known.presets:
        words += ["+".join(map(_written, meaning.method)), "--preset", meaning.preset]
    else:
        words += ["+".join(map(_written, meaning.defense))]
        words += ["--dataset", meaning.dataset.name if meaning.dataset else cell.dataset]
        words += ["--model", meaning.model.write] if meaning.model else []
        words += _threat(cell.norm, meaning.eps, ("Linf", None))
        words += ["--epochs", str(meaning.epochs)] if meaning.epochs else []
    # Without a preset the last epoch is kept where nothing else is asked for.
    if meaning.metric.select not in ("", *([] if "--preset" in words else ["last"])):
        words += ["--set", f"train.select={meaning.metric.select}"]
    return shlex.join([*words, *meaning.options])


def _threat(norm: str, eps: float | None, defaults: tuple[str, float | None]) -> list[str]:
    """The options for norm and radius, where these are stated and differ from the defaults."""
    words = ["--norm", norm] if norm not in ("", defaults[0]) else []
    return words + ([] if eps in (None, defaults[1]) else ["--eps", format_eps(eps or 0)])


def _attack(spec: Spec, known: Known) -> tuple[str, str]:
    """``--attack pgd20:step=3/31``: the steps stand in the name, where they may."""
    if spec.name in known.certificates:
        return "--certify", _written(spec)
    steps = spec.params.get("steps")
    for short in (f"{spec.name}{steps}", f"{spec.name}-{steps}"):
        if steps and known.attacks[spec.name].means(short):
            rest = {key: value for key, value in spec.params.items() if key != "steps"}
            return "--attack", _written(Spec(short, rest))
    return "--attack", _written(spec)


def _written(spec: Spec) -> str:
    pairs = ",".join(f"{key}={value}" for key, value in spec.params.items())
    return f"{spec.name}:{pairs}" if pairs else spec.name
