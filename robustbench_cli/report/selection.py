"""Which evaluations and which rows a report is about.

No torch in here: reports start fast.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase

from robustbench_cli.core.errors import UserError, hint
from robustbench_cli.report.columns import CLEAN, DIFF, LAST, MINUTES, REACHED
from robustbench_cli.report.robustness_table import TableRow
from robustbench_cli.report.seed_groups import of_kind
from robustbench_cli.runs.records import Kind, Run

_MEASURING = frozenset({"eval", "joint", "detect"})
"""The kinds of runs that a filter takes or leaves; what they were made on always stays."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The filters of a report; an empty one takes everything."""

    runs: tuple[str, ...] = ()
    """Ids, or parts of them, of evaluations or of the training runs that they are of."""
    defenses: tuple[str, ...] = ()
    """Names of rows; ``*`` stands for anything."""
    dataset: str | None = None
    attacks: tuple[str, ...] = ()
    """Names of columns; ``*`` stands for anything."""
    since: datetime | None = None
    until: datetime | None = None
    """The first moment that is too late."""

    def of_runs(self, every: Sequence[Run]) -> list[Run]:
        """Return the runs without the evaluations that the filters on runs and dates leave out.

        Raises:
            UserError: nothing is left of what a filter names.
        """
        kept = [run for run in every if self._in_time(run)]
        measured = [run for run in kept if run.kind in _MEASURING]
        if (self.since or self.until) and not measured:
            raise UserError("no evaluation between --since and --until")
        for part in self.runs:
            if not any(_is_of(run, part) for run in measured):
                raise no_evaluation("--run", part, every)
        return [
            run
            for run in kept
            if run.kind not in _MEASURING
            or not self.runs
            or any(_is_of(run, part) for part in self.runs)
        ]

    def of_rows(self, found: Sequence[TableRow]) -> list[TableRow]:
        """Return the rows that the filters on data, defenses and attacks leave.

        Raises:
            UserError: a filter fits no row.
        """
        left = [row for row in found if self.dataset in (None, *row.datasets)]
        names = [row.facts["defense"].text for row in left]
        _check("--defense", self.defenses, names)
        left = [row for row, name in zip(left, names, strict=True) if _fits(name, self.defenses)]
        _check("--attack", self.attacks, [column for row in left for column in _attacks(row)])
        return [row for row in left if not self.attacks or any(self._columns(row))]

    def columns(self, rows: Sequence[TableRow]) -> list[str]:
        """Return the columns to show: clean and the attacks that were named; none named: none."""
        if not self.attacks:
            return []
        return list(dict.fromkeys([CLEAN, *(name for row in rows for name in self._columns(row))]))

    def _columns(self, row: TableRow) -> list[str]:
        return [name for name in _attacks(row) if _fits(_plain(name), self.attacks)]

    def _in_time(self, run: Run) -> bool:
        if run.kind not in _MEASURING:
            return True
        early = self.since is not None and run.created < self.since
        return not early and (self.until is None or run.created < self.until)


def _is_of(run: Run, part: str) -> bool:
    """Return whether a part of an id names an evaluation, or what it is an evaluation of."""
    return any(part in each for each in (run.id, run.parent or "", *run.settings.runs))


def _attacks(row: TableRow) -> list[str]:
    """The columns of a row that hold something; those that stand for what a row is are none."""
    return [
        name
        for name, cell in row.cells.items()
        if cell is not None and name not in (CLEAN, MINUTES)
    ]


def no_evaluation(option: str, part: str, every: Sequence[Run], attack: str = "pgd20") -> UserError:
    """Return the error for an option that names a run, none of whose evaluations is in the table.

    Args:
        option: such as ``--run``.
        part: what was typed: an id, or a part of one.
        every: all records.
        attack: that of the command which would make such an evaluation.
    """
    named = [run for run in every if part in run.id]
    meant = next((run for run in named if run.id == part), named[0] if len(named) == 1 else None)
    if meant is None:
        known = [run.id for run in every if run.kind in (*_MEASURING, "train")]
        near = hint(part, known, "advbench list runs") if not named else _few(named)
        return UserError(f"{option} {part!r}: no evaluation of such a run{near}")
    if meant.kind in _GOES_ON and meant.status != "ok":
        command, what = shlex.join(["advbench", *meant.command]), "is not finished; to go on"
    else:
        trained = {run.id for run in of_kind([meant], "train")}
        of = meant.id if trained else meant.parent
        command = f"advbench eval --attack {attack}" + (f" --run {of}" if of else " --model MODEL")
        what = f"{_LACKS[meant.kind]}; make one"
    return UserError(f"{option} {part!r}: {meant.id!r} {what}: {command}")


_GOES_ON: Sequence[Kind] = ("eval",)
"""The runs that go on where they stopped when their command is given again."""
_OTHERS: Sequence[Kind] = (
    "attack",
    "detect",
    "synth",
    "joint",
    "audit",
    "explain",
    "invert",
    "retrieve",
)
_LACKS: Mapping[Kind, str] = {
    "train": "has no finished evaluation",
    "eval": "is a sweep or tries another model's images, and a plain evaluation is needed",
    **{kind: f"is a run of advbench {kind}, and an evaluation is needed" for kind in _OTHERS},
}
"""Why a run is in no main table, by its kind."""


def _few(named: Sequence[Run]) -> str:
    more = f" and {len(named) - 3} more" if len(named) > 3 else ""
    return f"; it is a part of {', '.join(run.id for run in named[:3])}{more}"


def _plain(column: str) -> str:
    """The attack of a column: without what was measured of it."""
    plain = column.removesuffix(LAST).removesuffix(DIFF)
    return plain.removesuffix(" dist").removesuffix(REACHED)


def _fits(name: str, patterns: Sequence[str]) -> bool:
    plain = name.partition(" (")[0]  # what tells rows of one name apart
    return not patterns or any(
        fnmatchcase(each.lower(), pattern.lower()) for pattern in patterns for each in (name, plain)
    )


def _check(option: str, patterns: Sequence[str], names: Sequence[str]) -> None:
    known = dict.fromkeys(map(_plain, names))
    for pattern in patterns:
        if not any(_fits(name, [pattern]) for name in known):
            raise UserError(f"{option} {pattern!r}: there is no such row{hint(pattern, known)}")


def first_moment(option: str, text: str) -> datetime:
    """Return the first moment of a day, or of a month: ``2026-11-01``, ``2026-11``.

    Raises:
        UserError: it is no date.
    """
    return _period(option, text)[0]


def last_moment(option: str, text: str) -> datetime:
    """Return the first moment after a day, or after a month; see ``first_moment``."""
    return _period(option, text)[1]


def _period(option: str, text: str) -> tuple[datetime, datetime]:
    try:
        day = datetime.strptime(text.strip(), "%Y-%m-%d").replace(tzinfo=UTC)
        end = day + timedelta(days=1)
    except ValueError:
        try:
            day = datetime.strptime(text.strip(), "%Y-%m").replace(tzinfo=UTC)
        except ValueError:
            raise UserError(f"{option} {text!r}: give a day, as 2026-11-01, or a month") from None
        end = (day + timedelta(days=31)).replace(day=1)
    # The days of where one is: records hold the time in UTC.
    here = [moment.replace(tzinfo=None).astimezone() for moment in (day, end)]
    return here[0], here[1]
