"""Tables of what is no accuracy under attack: explanations, inversions, retrieval.  No torch.

A row is a model and what was measured of it, a column is a measure; seeds of one recipe are joined
as mean and standard deviation, and of a repeated measurement the latest counts.
"""

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from robustbench_cli.report import seed_groups
from robustbench_cli.report.columns import distinguishing_params
from robustbench_cli.report.row_names import data_key, data_names
from robustbench_cli.runs import records
from robustbench_cli.runs.outcomes import Measure
from robustbench_cli.runs.records import Kind, Run

MEASURED_KINDS: tuple[Kind, ...] = ("explain", "invert", "retrieve")
"""The kinds of runs that leave measures."""
_LISTS = frozenset({"expose", "methods", "attack", "attacks", "radii"})
"""Settings that say which rows a run has, not how they were measured."""
_OF_THE_MODEL = frozenset({"dataset", "model", "defense", "threat", "n", "subset", "seed"})
"""Sections of a configuration that are about a model and its images."""


@dataclass(frozen=True, kw_only=True)
class MeasuredCell:
    """One measure of one row, a value for each seed that has it."""

    values: tuple[float, ...]
    unit: str
    notes: tuple[str, ...]
    """What is to be known of it; where there are no values, why."""

    @property
    def text(self) -> str:
        """The mean, with the standard deviation over seeds; a mark where there is a note."""
        if not self.values:
            return "n/a"
        scale = 100 if self.unit == "%" else 1
        numbers = [scale * value for value in self.values]
        digits = 2 if self.unit == "%" or max(map(abs, numbers)) >= 10 else 4
        spread = f" ± {stdev(numbers):.{digits}f}" if len(numbers) > 1 else ""
        return f"{fmean(numbers):.{digits}f}{spread}" + " *" * bool(self.notes)


@dataclass(frozen=True, kw_only=True)
class MeasuredLine:
    """What was measured of one model."""

    subject: str
    of: str
    cells: Mapping[str, MeasuredCell]
    seeds: tuple[int, ...]
    runs: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class MeasureTable:
    """Measurements of one kind on the same images."""

    kind: Kind
    about: Mapping[str, Any]
    """dataset, own_dataset (without what tells it apart), n."""
    columns: tuple[str, ...]
    lines: tuple[MeasuredLine, ...]

    @property
    def title(self) -> str:
        """The setting that all numbers share, in words."""
        return f"{self.kind}: {self.about['dataset']}, n {self.about['n']}"


def measured_kinds(runs: Sequence[Run]) -> list[Kind]:
    """Return the kinds of which a table can be made."""
    there = {run.kind for run in runs if run.status == "ok" and run.measures}
    return [kind for kind in MEASURED_KINDS if kind in there]


def measure_tables(runs: Sequence[Run], kind: Kind) -> list[MeasureTable]:
    """Return a table for each data set and number of images, in the order of their first run.

    Args:
        runs: every record, training runs included, oldest first.
    """
    done = [run for run in seed_groups.of_kind(runs, kind) if run.status == "ok" and run.measures]
    known = seed_groups.by_weights(seed_groups.trained(runs).values())
    names = data_names(done)
    tables: dict[Hashable, list[Run]] = defaultdict(list)
    for run in done:
        tables[data_key(run), run.settings.data.test_sha256, run.n].append(run)
    return [_table(kind, found, known, names[data_key(found[0])]) for found in tables.values()]


def _table(kind: Kind, runs: Sequence[Run], known: Mapping[str, Run], dataset: str) -> MeasureTable:
    groups: dict[Hashable, list[Run]] = defaultdict(list)
    for run in runs:
        groups[_model_key(run, known), _same_way(run)].append(run)
    extras = _differences(groups, known)
    lines = [
        line
        for key, found in groups.items()
        for line in _lines(found, _subject(found[0], known) + extras[key])
    ]
    columns = dict.fromkeys(name for line in lines for name in line.cells)
    return MeasureTable(
        kind=kind,
        about={"dataset": dataset, "own_dataset": records.data_name(runs[0]), "n": runs[0].n},
        columns=tuple(columns),
        lines=tuple(lines),
    )


def _model_key(run: Run, known: Mapping[str, Run]) -> Hashable:
    model = known.get(run.weights)
    return seed_groups.group_key(model) if model else run.weights or run.subject


def _subject(run: Run, known: Mapping[str, Run]) -> str:
    return known[run.weights].subject if run.weights in known else run.subject


def _own_section(run: Run) -> Mapping[str, Any]:
    """Return the settings that say how a run measured: a section of their own, ``invert``, or, of
    ``explain``, what stands beside the model, its images and the seed."""
    own = run.config.get(run.kind)
    if isinstance(own, Mapping):
        return own
    return {key: value for key, value in run.config.items() if key not in _OF_THE_MODEL}


def _settings(run: Run) -> dict[str, Any]:
    """Return how a run measured, without seeds and what has rows of its own."""
    return {k: v for k, v in _own_section(run).items() if k not in _LISTS and k != "seed"}


def _same_way(run: Run) -> str:
    return records.same_but_seed(_settings(run))


def _differences(
    groups: Mapping[Hashable, Sequence[Run]], known: Mapping[str, Run]
) -> dict[Hashable, str]:
    """Return what is added to a row's model where it was measured in several ways."""
    firsts = [found[0] for found in groups.values()]
    told = distinguishing_params([(_subject(run, known), _settings(run)) for run in firsts])
    return {
        key: f" ({', '.join(words)})" if words else ""
        for key, words in zip(groups, told, strict=True)
    }


def _lines(runs: Sequence[Run], subject: str) -> list[MeasuredLine]:
    # Of the same row on the same weights with the same seed the latest counts.
    latest: dict[str, dict[Hashable, tuple[Run, dict[str, Measure]]]] = defaultdict(dict)
    for run in runs:
        rows: dict[str, dict[str, Measure]] = defaultdict(dict)
        for measure in run.measures:
            rows[measure.of][measure.name] = measure
        for of, measures in rows.items():
            seeds = run.config.get("seed"), _own_section(run).get("seed")
            latest[of][run.weights, *seeds] = run, measures
    lines = []
    for of, found in latest.items():
        names = dict.fromkeys(name for _, measures in found.values() for name in measures)
        cells = {name: _cell([m[name] for _, m in found.values() if name in m]) for name in names}
        used = [run for run, _ in found.values()]
        lines.append(
            MeasuredLine(
                subject=subject,
                of=of,
                cells=cells,
                seeds=tuple(run.seed for run in used),
                runs=tuple(run.id for run in used),
            )
        )
    return lines


def _cell(measures: Sequence[Measure]) -> MeasuredCell:
    return MeasuredCell(
        values=tuple(m.value for m in measures if m.value is not None),
        unit=measures[0].unit,
        notes=tuple(dict.fromkeys(m.note for m in measures if m.note)),
    )
