"""Leaderboards as pages: their entries, and one's own models among them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from robustbench_cli.cli.formats import Grid, Page, TableEntry
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.threat_text import format_eps
from robustbench_cli.papers.leaderboard import BoardEntry, Leaderboard
from robustbench_cli.papers.placement import Placement, as_printed, placements, setting_of
from robustbench_cli.report.example_files import ExampleFiles
from robustbench_cli.report.number_trust import LOWER_BOUND_SIGN
from robustbench_cli.report.robustness_table import finished
from robustbench_cli.runs.records import Run

_FACTS = ("entry", "paper", "venue", "model", "extra data")
_COLUMNS = ("#", *_FACTS, "clean", "robust", "best known")
_MEANING = (
    "robust = under the leaderboard's attack, or on corrupted images; best known = the lower of "
    "that and a stronger evaluation; * = flagged by the leaderboard as possibly too high"
)
_OURS = "own"
_TIE = "="
"""Written after a place that several share."""
_OWN = (
    "own = measured here, not by the leaderboard; # = place by best known; (#) = the place it "
    "would take, which moves no entry, [places at the ends of its 95 % interval]; = after a "
    "place: shared, the numbers are the same; ≥ = at best"
)


def board_page(board: Leaderboard, table: str | None) -> Page:
    """Return the entries of a leaderboard, or of one of its tables, the best first."""
    found = board.only(table)
    lines = [_raw(board, entry) for entries in found.values() for entry in entries]
    return Page(
        head=[board.title, board.citation, *([board.about] if board.about else [])],
        grids=[_grid(name, entries, []) for name, entries in found.items()],
        notes=[_MEANING],
        lines=lines,
        objects=lines,
    )


def placed_page(
    board: Leaderboard,
    table: str | None,
    runs: Sequence[Run],
    files: ExampleFiles,
    *,
    dataset: str | None,
    like: str | None,
) -> Page:
    """Return the tables in which models that were evaluated here have a place, with these.

    Args:
        runs: every record, training runs included, oldest first.
        dataset: tables on this data set only, by advbench's name.
        like: an evaluation, or what it evaluated; None: all that fit.

    Raises:
        UserError: nothing fits; the tables are named, and what was measured.
    """
    tables = {
        name: entries
        for name, entries in board.only(table).items()
        if dataset is None or _data_name(board, name) == dataset
    }
    ours = {
        name: placements(board, name, entries, runs, files, like)
        for name, entries in tables.items()
    }
    shown = {name: placed for name, placed in ours.items() if placed}
    if not shown:
        raise UserError(_no_place(board, tables, runs, like))
    return Page(
        head=[board.title, board.citation, *([board.about] if board.about else [])],
        grids=[_grid(name, tables[name], placed) for name, placed in shown.items()],
        notes=[_MEANING, _OWN],
        legend=[line for placed in shown.values() for each in placed for line in _said(each)],
        lines=[_placed_raw(board, name, each) for name, of in shown.items() for each in of],
        objects=[
            {**_placed_raw(board, name, each), "runs": list(each.runs)}
            for name, of in shown.items()
            for each in of
        ],
    )


def _data_name(board: Leaderboard, table: str) -> str:
    data = board.datasets.get(board.tables[table].dataset)
    return data.name if data else ""


def _no_place(
    board: Leaderboard, tables: Mapping[str, object], runs: Sequence[Run], like: str | None
) -> str:
    """Return why there is nothing to place: the threats of the tables, and of what is here."""
    named = f"of {like!r} " if like else ""
    done = finished(runs)
    here = dict.fromkeys(setting_of(run) for run in done if not like or _concerns(run, like))
    listed = ", ".join(
        f"{name} {format_eps(about.eps)}"
        for name, about in board.tables.items()
        if name in tables and about.eps is not None
    )
    return (
        f"no evaluation {named}is on the data and the threat of a table of {board.name!r} "
        f"({listed}); there is: {', '.join(here) or 'nothing'}"
    )


def _concerns(run: Run, like: str) -> bool:
    return like in run.id or like in (run.parent or "")


def _grid(name: str, entries: Sequence[BoardEntry], ours: Sequence[Placement]) -> Grid:
    """Return the table with our rows where they belong, those without a place at the end."""
    mine = [as_printed(each.share) for each in ours if each.share is not None]
    count = Counter([*(float(entry.best_known) for entry in entries), *mine])
    ties = {number for number, times in count.items() if times > 1}
    lines: list[tuple[float, list[TableEntry]]] = []
    for entry in entries:
        place, number = 1, float(entry.best_known)
        place += sum(other.best_known > entry.best_known for other in entries)
        lines.append((number, _published(f"{place}{_TIE * (number in ties)}", entry)))
    for each in ours:
        # Below everything: what has no number.
        number = -1.0 if each.share is None else as_printed(each.share)
        lines.append((number, _own(each, number in ties)))
    lines.sort(key=lambda line: -line[0])
    facts = frozenset(_FACTS)
    return Grid(
        title=name,
        columns=_COLUMNS,
        rows=[row for _, row in lines],
        facts=facts,
        left=facts,
        prose=frozenset({"entry", "paper", "venue", "model"}),
    )


def _published(place: str, entry: BoardEntry) -> list[TableEntry]:
    flag = "*" if entry.unreliable else ""
    extra = "yes" if entry.extra else ""
    texts = (place, entry.name, entry.title, entry.venue, entry.architecture, extra)
    numbers = (f"{entry.clean}", f"{entry.robust}{flag}", f"{entry.best_known}")
    return [TableEntry(text) for text in (*texts, *numbers)]


def _own(each: Placement, tied: bool) -> list[TableEntry]:
    place = "-"
    if each.place is not None:
        sign = LOWER_BOUND_SIGN * each.at_best
        place = f"({sign}{each.place}{_TIE * tied})"
        if each.best is not None:
            ends = f"{each.best}-{each.worst}" if each.worst else f"{LOWER_BOUND_SIGN}{each.best}"
            place += f" [{ends}]"
    texts = (place, each.name, _OURS, "", each.model, "", each.clean, each.robust, each.robust)
    return [TableEntry(text, best=bool(text)) for text in texts]


def _said(each: Placement) -> list[str]:
    """Return the lines below the table about one of our models."""
    where = "no place: the number is withheld"
    if each.place is not None:
        where = f"place {'at best ' * each.at_best}{each.place}"
        if each.tied:
            more = f" and {len(each.tied) - 1} more" if len(each.tied) > 1 else ""
            where += f", with the same number as {each.tied[0]}{more}"
        if each.worst is not None:
            where += f" (places {each.best} to {each.worst} by the 95 % interval)"
        elif each.best is not None:
            where += f" ({each.best} at the upper end of the 95 % interval)"
    differs = ", ".join(map(str, each.differs)) or "nothing that is known"
    named = f"{each.name}, {each.model}"
    return [
        f"{named}: {where}",
        f"{named}: what differs (leaderboard): {differs}",
        f"{named}: {each.audit}",
    ]


def _raw(board: Leaderboard, entry: BoardEntry) -> dict[str, Any]:
    numbers = ("clean", "robust", "external")
    values = {
        key: float(value) if key in numbers and value is not None else value
        for key, value in asdict(entry).items()
    }
    return {"leaderboard": board.name, **values, "best_known": float(entry.best_known)}


def _placed_raw(board: Leaderboard, table: str, each: Placement) -> dict[str, Any]:
    return {
        "leaderboard": board.name,
        "table": table,
        "defense": each.name,
        "model": each.model,
        "robust": each.share,
        "place": each.place,
        "place_low": each.best,
        "place_high": each.worst,
        "tied_with": "; ".join(each.tied),
        "at_best": each.at_best,
        "differs": "; ".join(map(str, each.differs)),
        "audit": each.audit,
    }
