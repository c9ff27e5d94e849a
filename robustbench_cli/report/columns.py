"""Names of the attacks of many evaluations, so that each has one column of a table."""

import json
import re
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from robustbench_cli.config.catalogue import typed
from robustbench_cli.core.threat_text import format_eps
from robustbench_cli.runs.outcomes import Outcome, TargetedOutcome, Within
from robustbench_cli.runs.records import Run

CLEAN, WORST, MINUTES = "clean", "worst", "minutes"
LAST, DIFF = " last", " diff"
"""After a column's name: of the last epoch's weights, and what they gain over the kept ones."""
REACHED = " reached"
"""After the name of an attack with a target: the share of targets that it reached."""
RESERVED_COLUMNS = ("defense", "dataset", "model", "eps", "n", "seeds", CLEAN, WORST, MINUTES)
"""Names of other columns, which no attack's column may have."""


def is_plain(run: Run) -> bool:
    """Return True for an evaluation of one model under its own attacks at one radius: no sweep, no
    transfer."""
    return not run.settings.swept and not run.settings.source


def key_of(run: Run, outcome: Outcome, *, apart: bool = True) -> str:
    """Equal for outcomes that share a column; ``apart``: only if crafted on one model."""
    made_on = (run.settings.source.weights or None) if apart else None
    # Nothing is added where an attack is what its name stands for.
    other = [outcome.variant] * bool(outcome.variant)
    return json.dumps([outcome.params, outcome.eps, made_on, *other], sort_keys=True)


def is_last_epoch(run: Run, trained: Mapping[str, Run]) -> bool:
    """Return True for the last epoch's weights of a training run that keeps others."""
    parent = trained.get(run.parent or "")
    kept = parent.checkpoint if parent else None
    return bool(kept and run.evaluated and run.evaluated.rule != kept.rule)


@dataclass(frozen=True, kw_only=True)
class TableColumn:
    """One attack, at one value if it was swept."""

    name: str
    attack: str
    """The same for all values of a sweep."""
    at: tuple[str, float] | None
    """Over what, and the value."""
    distance: str
    """The column of the distances; nothing where there are none."""
    reached: bool = False
    """True for the share of targets that an attack with a target reached."""


def columns(done: Sequence[Run], trained: Mapping[str, Run]) -> dict[str, TableColumn]:
    """The column of every attack by its key, the label it was first given; then certificates.

    Where a label stands for several attacks it gets what differs.
    """
    found: dict[str, tuple[Run, str, Outcome]] = {}
    far = set()
    # What was swept comes last, and lends its label to nothing else.
    for run in sorted(done, key=lambda run: bool(run.settings.swept)):
        for label, outcome in run.attacks.items():
            found.setdefault(key_of(run, outcome), (run, label, outcome))
            if outcome.minimal and not run.settings.swept:
                far.add(key_of(run, outcome))
    taken, result = {*RESERVED_COLUMNS}, {}
    for (key, seen), attack in zip(found.items(), labels([*found.values()], trained), strict=True):
        at = _at(seen[0], seen[2])
        name = f"{attack}@{at[0]}={format_eps(at[1])}" if at else attack
        if at and name in taken:
            name = f"{attack}@{at[0]}={at[1]!r}"
        # Whatever a suite calls its attacks: two never share a column.
        while {name, f"{name} dist"} & taken:
            name += "'"
        distance = f"{name} dist" if key in far else ""
        taken |= {name, distance}
        result[key] = TableColumn(name=name, attack=attack, at=at, distance=distance)
    result |= _targeted(done, taken)
    result |= _certified(done, taken)
    return dict(sorted(result.items(), key=lambda pair: _place(pair[1], list(result.values()))))


@dataclass(frozen=True, kw_only=True)
class CertifiedCount:
    """Right answers of one certified predictor, or those proven within one ball."""

    label: str
    """The certificate's."""
    within: Within | None
    """The ball; None: whatever is proven."""
    correct: int


def certified_counts(run: Run) -> dict[str, CertifiedCount]:
    """Right answers by column's key: of each certified predictor, then within each ball."""
    return {
        json.dumps([proof.params, ball_label(within) if within else ""], sort_keys=True): (
            CertifiedCount(label=label, within=within, correct=correct)
        )
        for label, proof in run.certificates.items()
        for within, correct in ((None, proof.correct), *((w, w.correct) for w in proof.within))
    }


def ball_label(within: Within) -> str:
    """``L2=0.25`` or ``Linf=2/255``."""
    return f"{within.norm}={format_eps(within.eps)}"


def target_key(outcome: TargetedOutcome) -> str:
    """Equal for outcomes of attacks with a target that share a column."""
    return json.dumps([outcome.params, outcome.variant, "targets reached"], sort_keys=True)


def _targeted(done: Sequence[Run], taken: set[str]) -> dict[str, TableColumn]:
    """A column for each attack with a target, by key."""
    result = {}
    for label, outcome in (pair for run in done for pair in run.targeted.items()):
        if (key := target_key(outcome)) not in result:
            name = f"{outcome.titled(label)}{REACHED}"
            while name in taken:
                name += "'"
            taken.add(name)
            result[key] = TableColumn(name=name, attack=name, at=None, distance="", reached=True)
    return result


def _certified(done: Sequence[Run], taken: set[str]) -> dict[str, TableColumn]:
    """A column for each certified predictor and each ball, by key."""
    found = [
        json.loads(key)
        for key in dict.fromkeys(key for run in done for key in certified_counts(run))
    ]
    result = {}
    for (params, within), more in zip(
        found, distinguishing_params([(p["name"], p) for p, _ in found]), strict=True
    ):
        others = {p["name"] for p, ball in found if ball == within} - {params["name"]}
        told = ",".join([*([params["name"]] if within and others else []), *more])
        name = join_label("certified" if within else params["name"], told)
        name = f"{name}@{within}" if within else name
        while name in taken:
            name += "'"
        key = json.dumps([params, within], sort_keys=True)
        result[key] = TableColumn(name=name, attack=name, at=None, distance="")
    return result


def _place(column: TableColumn, among: Sequence[TableColumn]) -> tuple[int, float]:
    """The values of a sweep stand side by side and rise, whatever they were measured in."""
    if column.at is None:
        return -1, 0.0
    of = (column.attack, column.at[0])
    first = next(i for i, c in enumerate(among) if c.at and (c.attack, c.at[0]) == of)
    return first, column.at[1]


def labels(
    found: Sequence[tuple[Run, str, Outcome]], trained: Mapping[str, Run] | None = None
) -> list[str]:
    """Return a name for each attack, without the value of a sweep; last_iterate is always named.

    Args:
        found: evaluation, label and outcome.
        trained: to name the models that images were crafted on; without: not to.
    """
    heads, things = [], []
    for run, label, outcome in found:
        name = _whole(run, label, outcome) if run.settings.swept else label
        if outcome.params.get("last_iterate") and "last_iterate" not in name:
            name = join_label(name, "last_iterate=true")
        made_on = run.settings.source.id if trained is not None else ""
        craft = trained[made_on].subject if trained and made_on in trained else made_on
        heads.append((name, f" from {craft}" if craft else ""))
        params = {k: v for k, v in outcome.params.items() if k != run.settings.swept}
        things.append(
            ((*heads[-1], run.settings.swept), params | ({"source": made_on} if craft else {}))
        )
    return [
        outcome.titled(join_label(name, ",".join(more))) + craft
        for (name, craft), more, (*_, outcome) in zip(
            heads, distinguishing_params(things), found, strict=True
        )
    ]


def _at(run: Run, outcome: Outcome) -> tuple[str, float] | None:
    over = run.settings.swept
    value = outcome.params.get(over) if outcome.eps is None else outcome.eps
    return (over, float(value)) if over and value is not None else None


def _whole(run: Run, label: str, outcome: Outcome) -> str:
    """The label without the value of the sweep; one over steps is no ``pgd20``."""
    label = label.rpartition("@")[0] or label
    if outcome.eps is not None:
        return label
    steps = run.settings.attack.get(label, {}).get("steps", "")
    head, _, tail = label.partition(":")
    name = str(outcome.params.get("name", head))
    head = name if re.fullmatch(f"{re.escape(name)}-?{steps}", head) else head
    kept = [part for part in tail.split(",") if not part.startswith("steps=")]
    return join_label(head, ",".join(kept))


def join_label(label: str, more: str) -> str:
    """A label with further ``key=value``."""
    return f"{label}{',' if ':' in label else ':'}{more}" if more else label


def distinguishing_params(things: Sequence[tuple[Hashable, Mapping[str, Any]]]) -> list[list[str]]:
    """For each thing, ``key=value`` for what differs among those of its name."""
    alike: dict[Hashable, list[Mapping[str, Any]]] = defaultdict(list)
    for name, params in things:
        alike[name].append(params)
    return [
        [
            f"{key}={_typed_apart(value, others)}"
            for key, value in params.items()
            if (others := [o.get(key) for o in alike[name] if o.get(key) != value])
        ]
        for name, params in things
    ]


def _typed_apart(value: object, others: Sequence[object]) -> str:
    """A value as a user would type it; with all digits where another one is written alike."""
    text = typed(value)
    return repr(value) if any(typed(other) == text for other in others) else text
