"""Leaderboards: published entries that a run can be placed among, from NAME.csv and NAME.toml.

Adding one is adding these two files to ``leaderboards``.  No torch, and nothing measured here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, TypeAdapter

from robustbench_cli import papers
from robustbench_cli.core.errors import UserError, hint
from robustbench_cli.core.registry import Number
from robustbench_cli.papers.checked_files import checked, csv_lines
from robustbench_cli.papers.paper import Data
from robustbench_cli.papers.publication import Publication

_Flag = Annotated[bool, BeforeValidator(lambda text: {"": False, "yes": True}.get(text, text))]
_STRICT = {"extra": "forbid"}


@dataclass(frozen=True, kw_only=True)
class BoardEntry:
    """One model of a leaderboard: a line of its CSV file; accuracies in per cent, as printed."""

    table: str
    name: str
    title: str
    """Of the paper."""
    venue: str = ""
    architecture: str = ""
    norm: str = ""
    eps: Number | None = None
    extra: _Flag = False
    """True if it was trained with additional data."""
    clean: Decimal
    robust: Decimal
    """Under the attack of the leaderboard, or on corrupted images."""
    external: Decimal | None = None
    """What a stronger evaluation than the leaderboard's own has left."""
    unreliable: _Flag = False
    """True if the leaderboard itself flags its number as possibly too high."""

    @property
    def best_known(self) -> Decimal:
        """The lowest accuracy that anything has left, by which entries are ranked."""
        return self.robust if self.external is None else min(self.robust, self.external)


@dataclass(frozen=True, kw_only=True)
class BoardTable:
    """What all entries of one table have in common."""

    __pydantic_config__ = _STRICT

    dataset: str
    norm: str = ""
    """Nothing where images are corrupted, not attacked."""
    eps: Number | None = None
    n: int | None = None
    """The number of test images."""


@dataclass(frozen=True, kw_only=True)
class Leaderboard(Publication):
    """The entries of a leaderboard, and what its words mean here."""

    __pydantic_config__ = _STRICT

    attacks: tuple[dict[str, str], ...]
    """The attacks of advbench that are the leaderboard's: parameters that must be equal."""
    tables: Mapping[str, BoardTable]
    datasets: Mapping[str, Data] = field(default_factory=dict)
    entries: tuple[BoardEntry, ...]

    @property
    def numbers(self) -> int:
        """How many accuracies there are."""
        return sum(2 + (entry.external is not None) for entry in self.entries)

    def only(self, table: str | None) -> dict[str, Sequence[BoardEntry]]:
        """Return the entries by table, the best first; ``UserError`` for a table not there."""
        named = {name.lower(): name for name in self.tables}
        if table is not None and table.strip().lower() not in named:
            near = hint(table, self.tables)
            raise UserError(f"leaderboard {self.name!r} has no table {table!r}{near}")
        chosen = [*self.tables] if table is None else [named[table.strip().lower()]]
        return {
            name: sorted(
                (entry for entry in self.entries if entry.table == name),
                key=lambda entry: -entry.best_known,
            )
            for name in chosen
        }


_ENTRY, _BOARD = TypeAdapter(BoardEntry), TypeAdapter(Leaderboard)
_COLUMNS = tuple(each.name for each in fields(BoardEntry))
_NO_DATA: Mapping[str, Any] = {}


def find_board(text: str, folder: Path = papers.BOARDS) -> str | None:
    """Return the leaderboard that a text means; None: it means none, but perhaps a paper."""
    wanted = text.strip().lower()
    return wanted if wanted in papers.paper_names(folder) else None


def load_board(name: str, folder: Path = papers.BOARDS) -> Leaderboard:
    """Return a leaderboard.

    Raises:
        UserError: a damaged file; it is named.
    """
    where, shared = folder / f"{name}.toml", papers.FOLDER / f"{papers.COMMON}.toml"
    about = papers.read_toml(where)
    common = papers.read_toml(shared).get("datasets", _NO_DATA)
    entries = _entries(folder / f"{name}.csv", about.get("tables", _NO_DATA))
    sets = {**common, **about.pop("datasets", _NO_DATA)}
    values = {**about, "name": name, "entries": entries, "datasets": sets}
    return checked(_BOARD, values, str(where))


def _entries(path: Path, tables: Mapping[str, Any]) -> tuple[BoardEntry, ...]:
    found = []
    for where, row in csv_lines(path, _COLUMNS):
        if (table := row.get("table", "")) not in tables:
            raise UserError(f"{where} is damaged: no table {table!r}")
        found.append(checked(_ENTRY, row, where))
    return tuple(found)
