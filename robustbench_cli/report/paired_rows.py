"""Two models, or two recipes over their seeds, on the same test images."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustbench_cli.core.errors import UserError, hint
from robustbench_cli.report.attacked_images import as_evaluation
from robustbench_cli.report.columns import WORST, is_plain
from robustbench_cli.report.example_files import ExampleFiles
from robustbench_cli.report.paired_tests import PairedTable, paired_table
from robustbench_cli.report.robustness_table import TableRow, finished, rows
from robustbench_cli.report.sampling import check_same_images
from robustbench_cli.report.seed_groups import of_kind
from robustbench_cli.report.standings import same_attacks
from robustbench_cli.report.statistics import Cell
from robustbench_cli.report.withheld import WithheldNumber
from robustbench_cli.runs.records import Kind, Run

_FIRST, _SECOND = "first", "second"
_KINDS: Sequence[Kind] = ("train", "eval", "attack")
"""The kinds of runs that can be compared, in the order in which a part of an id is looked for."""


@dataclass(frozen=True, kw_only=True)
class PairedLine:
    """What both were measured by, and how they compare."""

    measured: str
    """clean, an attack, a certificate, or worst."""
    first: Cell
    second: Cell
    table: PairedTable


@dataclass(frozen=True, kw_only=True)
class PairedRows:
    """Two rows under the same threat on the same images."""

    first: TableRow
    second: TableRow
    lines: Sequence[PairedLine]
    withheld: Sequence[str]
    """What was measured for both and means nothing for one, so that it is not compared."""
    open: Sequence[str] = ()
    """What has two ends for one, as a sample or a budget left something open: its images are not
    all judged, so that it is not compared."""


def paired_rows(
    runs: Sequence[Run], names: tuple[str, str], files: ExampleFiles
) -> list[PairedRows]:
    """Compare two rows, once for each threat and number of images that both were evaluated with.

    Args:
        runs: every record, training runs included, oldest first.
        names: each a row's name in the table, which stands for all its seeds; or the id of a
            training run, an evaluation or a run of ``advbench attack``, an unambiguous part of one,
            or the path of its folder.
        files: the per-example verdicts.

    Raises:
        UserError: a name means nothing or several things, both mean the same, or nothing of theirs
            can be compared.
        MissingVerdicts: verdicts are missing, damaged, or about other images.
    """
    table = rows(runs, keep=_own_images)
    first, second = (_evaluations(name, runs, table, files) for name in names)
    for some, name in ((first, names[0]), (second, names[1])):
        if not some:
            raise UserError(f"--compare {name!r}: it has no finished evaluation or attack")
    if first & second:
        raise UserError(f"--compare {names[0]!r} {names[1]!r}: both mean the same evaluations")
    attacked = {run.id for run in of_kind(runs, "attack")} & (first | second)
    runs = [as_evaluation(run, files) if run.id in attacked else run for run in runs]
    plain = {run.id for run in runs if is_plain(run)}
    # A sweep is compared where there is nothing else.
    usual = plain if first & plain and second & plain else first | second
    sides = {**dict.fromkeys(first & usual, _FIRST), **dict.fromkeys(second & usual, _SECOND)}
    apart = rows(runs, keep=lambda run: run.id in sides, files=files, side=sides)
    found = {
        side: {row.setting: row for row in apart if sides[row.runs[0]] == side}
        for side in (_FIRST, _SECOND)
    }
    shared = [setting for setting in found[_FIRST] if setting in found[_SECOND]]
    if not shared:
        sides_by_name = dict(zip(names, found.values(), strict=True))
        described = (f"{name!r} on {_settings(each)}" for name, each in sides_by_name.items())
        raise UserError(
            "--compare: not the same test images, threat and n: " + ", ".join(described)
        )
    return [_paired(found[_FIRST][each], found[_SECOND][each]) for each in shared]


def _own_images(run: Run) -> bool:
    return not run.settings.source


def _settings(found: Mapping[Any, TableRow]) -> str:
    """The data, threats and numbers of images of rows, in words."""
    facts = (row.facts for row in found.values())
    return " and ".join(f"{f['dataset'].text}, {f['eps'].text}, n {f['n'].text}" for f in facts)


def _paired(first: TableRow, second: TableRow) -> PairedRows:
    both = [
        (name, one, other)
        for name, one in first.cells.items()
        if isinstance(one, Cell) and isinstance(other := second.cells.get(name), Cell)
        if name != WORST or same_attacks([first, second])
    ]
    lines = []
    open_ = [name for name, *cells in both if any(each.has_two_ends for each in cells)]
    for name, one, other in (each for each in both if each[0] not in open_):
        samples = one.sample, other.sample
        check_same_images(one.origins[0], other.origins[0])
        lines.append(
            PairedLine(measured=name, first=one, second=other, table=paired_table(*samples))
        )
    pairs = {name: (one, second.cells.get(name)) for name, one in first.cells.items()}
    return PairedRows(
        first=first,
        second=second,
        lines=lines,
        withheld=[
            name
            for name, pair in pairs.items()
            if all(pair) and any(isinstance(each, WithheldNumber) for each in pair)
        ],
        open=open_,
    )


def _evaluations(
    name: str, runs: Sequence[Run], table: Sequence[TableRow], files: ExampleFiles
) -> set[str]:
    """The ids of the evaluations that a name means; raise ``UserError`` if it means none."""
    titles = [(row, _titles(row)) for row in table]
    named = [row for row, known in titles if name in known]
    models = {row.facts["model"].text for row in named}
    if len(models) > 1:
        choice = ", ".join(sorted(f"{name} {model}" for model in models))
        raise UserError(f"--compare {name!r}: it is the name of several rows: {choice}")
    if named:
        return {id_ for row in named for id_ in row.runs}
    return _of_run(name, runs, files, [title for _, known in titles for title in known])


def _titles(row: TableRow) -> tuple[str, str]:
    """The names of a row: its defense, and this with its model."""
    defense = row.facts["defense"].text
    return defense, f"{defense} {row.facts['model'].text}"


def _of_run(
    name: str, runs: Sequence[Run], files: ExampleFiles, titles: Collection[str]
) -> set[str]:
    """The evaluations of the run that a name means: an id, a part of one, or a path."""
    known = [run for kind in _KINDS for run in runs if run.kind == kind]
    whole = [run for run in known if run.id == name]
    if not whole and (folder := _folder(name)):
        whole = [run for run in known if files.folders[run.id].resolve() == folder]
    parts = [[run for run in known if run.kind == kind and name in run.id] for kind in _KINDS]
    found = next((each for each in (whole, *parts) if each), [])
    if len(found) > 1:
        choice = ", ".join(run.id for run in found[:4])
        raise UserError(f"--compare {name!r}: it is ambiguous: {choice}")
    if not found:
        others = [run for run in runs if run.kind not in _KINDS]
        folder = _folder(name)
        for other in others:
            if name in other.id or (folder and files.folders[other.id].resolve() == folder):
                raise UserError(
                    f"--compare {name!r}: {other.id!r} is a run of advbench {other.kind}; what can "
                    "be compared are evaluations, runs of advbench attack, and what was trained"
                )
        near = hint(name, [*dict.fromkeys([*titles, *(run.id for run in known)])])
        raise UserError(f"--compare {name!r}: no row and no run has this name{near}")
    (meant,) = found
    judged = [run for run in finished(runs) if _own_images(run)]
    attacked = [run for run in of_kind(runs, "attack") if run.status == "ok"]
    # The images of attacks stand for a model that was not evaluated.
    each = (
        {run.id for run in some if meant.id in (run.id, run.parent)} for some in (judged, attacked)
    )
    return next(filter(None, each), set())


def _folder(name: str) -> Path | None:
    """The folder of a run, if a name is its path or that of the record in it."""
    given = Path(name)
    folder = given.parent if given.suffix == ".json" else given
    return folder.resolve() if (folder / "run.json").is_file() else None
