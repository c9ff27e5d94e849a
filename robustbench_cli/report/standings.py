"""The best number of a column, as far as a paired test over the same images says so."""

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

from robustbench_cli.report.columns import LAST, WORST
from robustbench_cli.report.example_files import MissingVerdicts
from robustbench_cli.report.origins import AttackOrigin
from robustbench_cli.report.robustness_table import TableRow
from robustbench_cli.report.statistics import Distance, Measurement

_OTHER_ATTACKS = "its rows were not all under the same attacks"

Place = tuple[int, str]
"""The number of a row, and the name of a column."""


@dataclass(frozen=True)
class Standings:
    """The places of a table that are best, and why others are not marked."""

    alone: set[Place] = field(default_factory=set)
    """Better than every comparable number of its column, each by a paired test."""
    tied: set[Place] = field(default_factory=set)
    """The highest number of its column, and those that no paired test tells from it."""
    untested: dict[str, str] = field(default_factory=dict)
    """Columns in which some best number is not marked, with the reason."""
    distances: bool = False
    """True if there are distances to compare, which no test compares."""


def standings(rows: Sequence[TableRow], columns: Sequence[str]) -> Standings:
    """Return the best numbers of these columns among rows that are comparable.

    The verdicts of a column are read only where at least two rows can be compared and all of them
    have their files.
    """
    found = Standings(
        distances=any(
            len(group) > 1 and isinstance(next(iter(group.values())), Distance)
            for _, group in _groups(rows, columns)
        )
    )
    for name, group in _groups(rows, columns):
        if len(group) < 2 or any(isinstance(cell, Distance) for cell in group.values()):
            continue
        if name == WORST and not same_attacks([rows[place] for place in group]):
            found.untested.setdefault(name, _OTHER_ATTACKS)
            continue
        try:
            top, equal = _best(group)
        except MissingVerdicts as error:
            found.untested.setdefault(name, str(error))
        else:
            places = found.tied if equal else found.alone
            places.update((place, name) for place in (top, *equal))
    return found


def same_attacks(rows: Sequence[TableRow]) -> bool:
    """Return True if the worst cases of rows are over the same attacks."""
    measured = [set(filter(None, map(_attack, row.cells.values()))) for row in rows]
    return all(each == measured[0] for each in measured)


def _attack(cell: Measurement | None) -> str:
    """The name of a number that has a part in the worst case; empty for any other."""
    if cell is None or cell.at or cell.name.endswith(LAST):
        return ""
    return cell.name if any(isinstance(each, AttackOrigin) for each in cell.origins) else ""


def _groups(
    rows: Sequence[TableRow], columns: Sequence[str]
) -> list[tuple[str, Mapping[int, Measurement]]]:
    """The numbers that are comparable, by the rows' places, with the name of their column."""
    found: dict[tuple[Hashable, str], dict[int, Measurement]] = defaultdict(dict)
    for place, row in enumerate(rows):
        for name in columns:
            if (cell := row.cells.get(name)) and cell.competes:
                found[row.setting, name][place] = cell
    return [(name, group) for (_, name), group in found.items()]


def _best(group: Mapping[int, Measurement]) -> tuple[int, list[int]]:
    """The place of the highest number, and the places that no test tells from it.

    Raises:
        MissingVerdicts: those of a number are missing, damaged, or about other images.
    """
    for cell in group.values():
        cell.check_presence()
    from robustbench_cli.report.paired_tests import distinguishable
    from robustbench_cli.report.sampling import check_same_images

    top = max(group, key=lambda place: group[place].mean)
    best, rest = group[top], {place: cell for place, cell in group.items() if place != top}
    for cell in rest.values():
        check_same_images(best.origins[0], cell.origins[0])
    return top, [p for p, cell in rest.items() if not distinguishable(best.sample, cell.sample)]
