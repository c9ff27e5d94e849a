"""Names of rows: whatever two rows of a table differ in is shown, so that none look alike."""

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from robustbench_cli.report.columns import distinguishing_params, join_label
from robustbench_cli.report.model_names import SAME
from robustbench_cli.report.seed_groups import flat
from robustbench_cli.runs import records
from robustbench_cli.runs.records import Run

_TOLD = 3  # differences that tell a name apart; more only where these do not suffice


@dataclass(frozen=True, kw_only=True)
class RowDetails:
    """All that a row could be told apart by."""

    defense: str
    dataset: str
    """Told apart already (``data_names``)."""
    model: str
    """The architecture's name."""
    model_params: Mapping[str, Any]
    threat: str
    norm: str
    eps: float
    mask: str
    n: int
    settings: Mapping[str, Any]
    """The settings of the training; of a model without one the weights."""
    data: Mapping[str, str]
    """Fingerprints of the data of the training."""
    run: str
    """The id of an evaluation that is in no other row."""


def told_apart(rows: Sequence[RowDetails]) -> list[dict[str, str]]:
    """Return the defense, model and eps of each row as they are shown, by these names.

    A model's name gets the parameters that differ among models of that name.  Rows that still look
    alike get what differs in their threats, then in their settings, and at last the id of a run.
    """
    # What stands around a model of the user's own tells it from itself, not from other models.
    kinds = [(row.model, row.defense if row.model == SAME else "") for row in rows]
    params = distinguishing_params(
        [(kind, row.model_params) for kind, row in zip(kinds, rows, strict=True)]
    )
    models = [join_label(r.model, ",".join(p)) for r, p in zip(rows, params, strict=True)]
    threats = _exact_where_alike(rows)
    looks: dict[Hashable, list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        looks[row.defense, row.dataset, models[place], threats[place], row.n].append(place)
    defenses = [row.defense for row in rows]
    for places in looks.values():
        for place, more in zip(places, _differences([rows[p] for p in places]), strict=True):
            defenses[place] += f" ({', '.join(more)})" if more else ""
    return [
        {"defense": defense, "model": model, "eps": threat}
        for defense, model, threat in zip(defenses, models, threats, strict=True)
    ]


def data_names(runs: Sequence[Run]) -> dict[tuple[str, str], str]:
    """Return the names of the test data of evaluations, by ``data_key``.

    A name that stands for several data sets gets what differs: as much of the path as it takes, the
    parameters, or where these are the same the fingerprint of the images.
    """
    alike: dict[str, dict[str, Mapping[str, Any]]] = defaultdict(dict)
    for run in runs:
        name, sha256 = data_key(run)
        alike[name].setdefault(sha256, run.settings.stated_dataset or {})
    return {
        (name, sha256): text
        for name, found in alike.items()
        for sha256, text in zip(found, _names_of_data(name, found), strict=True)
    }


def data_key(run: Run) -> tuple[str, str]:
    """Return the short name of an evaluation's data, and the fingerprint of its test images."""
    return records.data_name(run), run.settings.test_sha256


def _names_of_data(name: str, found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    if len(found) == 1:
        return [name]
    paths = [PurePath(str(table.get("path") or "")) for table in found.values()]
    heads = [name] * len(paths)
    if len({*paths}) > 1:
        tails = _shortest_tails(paths)
        heads = [f"{name.partition(':')[0]}:{tail}" if tail else name for tail in tails]
    rest = [
        {k: v for k, v in table.items() if k not in ("name", "path") and v is not None}
        for table in found.values()
    ]
    more = distinguishing_params([*zip(heads, rest, strict=True)])
    texts = [join_label(head, ",".join(each)) for head, each in zip(heads, more, strict=True)]
    return [
        join_label(text, f"test={sha256[:8]}") if texts.count(text) > 1 else text
        for text, sha256 in zip(texts, found, strict=True)
    ]


def _shortest_tails(paths: Sequence[PurePath]) -> list[str]:
    """The last parts of each path, as many as it takes to tell all that differ apart."""
    for count in range(1, max(len(path.parts) for path in paths) + 1):
        tails = ["/".join(path.parts[-count:]) for path in paths]
        if len({*tails}) == len({*paths}):
            break
    return tails


def _exact_where_alike(rows: Sequence[RowDetails]) -> list[str]:
    """The threats of rows as text; with all digits where two that differ are written alike."""
    known: dict[str, set[tuple[str, float, str]]] = defaultdict(set)
    for row in rows:
        known[row.threat].add((row.norm, row.eps, row.mask))
    return [
        f"{row.norm} {row.eps!r}" + (f", mask {row.mask}" if row.mask else "")
        if len(known[row.threat]) > 1
        else row.threat
        for row in rows
    ]


def _differences(rows: Sequence[RowDetails]) -> list[list[str]]:
    """``key=value`` for what tells rows apart that look alike, else the id of a run.

    Some of the settings that differ are enough: the first few, and then, fingerprints of data
    included, those that part what these leave together.
    """
    if len(rows) == 1:
        return [[]]
    settings = [dict(flat(row.settings)) for row in rows]
    whole = [{**own, **row.data} for own, row in zip(settings, rows, strict=True)]
    told = _differing_keys(settings)[:_TOLD]

    def groups(chosen: Sequence[str]) -> int:
        return len({tuple(repr(each.get(key)) for key in chosen) for each in whole})

    for key in _differing_keys(settings) + _differing_keys([row.data for row in rows]):
        if groups([*told, key]) > groups(told):
            told.append(key)
    shown = distinguishing_params(
        [("", {key: each[key] for key in told if key in each}) for each in whole]
    )
    return [
        [*each, f"run={row.run}"] if shown.count(each) > 1 else each
        for each, row in zip(shown, rows, strict=True)
    ]


def _differing_keys(tables: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys whose values are not the same in all tables."""
    keys = dict.fromkeys(key for table in tables for key in table)
    return [key for key in keys if any(t.get(key) != tables[0].get(key) for t in tables)]
