"""The tables of zoo.md, from ``docs/zoo.json``, which ``benchmarks/zoo.py`` writes."""

import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from marked_parts import table

ROWS = Path(__file__).with_name("zoo.json")
POINTS = 5.0
"""Percentage points above the true accuracy from which a number is overstated."""
ATTACKS = ("pgd20", "autoattack")
SIGNS = {"sound": "", "upper bound": "≤ ", "withheld": "withheld: ", "unchecked": "unchecked: "}


@cache
def members() -> Mapping[str, Mapping[str, Any]]:
    """Return the rows by member and by attack, in the order of the file."""
    found: dict[str, dict[str, Any]] = {}
    for row in json.loads(ROWS.read_text()):
        found.setdefault(row["member"], {})[row["attack"]] = row
    return found


def overstated(row: Mapping[str, Any]) -> bool:
    """Return whether a number is above the true one by more than attacks differ."""
    both = row["printed"] is not None and row["true"] is not None
    return both and row["printed"] > row["true"] + POINTS


def percent(accuracy: float | None) -> str:
    """Return an accuracy as a cell, or a dash where it is not known."""
    return "-" if accuracy is None else f"{accuracy:g}"


def counts() -> str:
    """Return how many numbers are overstated, and how many states are wrong, by attack and half."""
    lines = []
    for attack in ATTACKS:
        for half in ("tune", "report"):
            every = [rows[attack] for rows in members().values() if attack in rows]
            mine = [row for row in every if row["half"] == half]
            if not mine:
                continue
            planted = [row for row in mine if row["kind"] != "honest"]
            over = [row for row in planted if overstated(row)]
            honest = [row for row in mine if row["kind"] == "honest"]
            passed = sum(row["state"] == "sound" for row in over)
            marked = sum(row["state"] != "sound" for row in honest)
            numbers = (len(planted), len(over), passed, len(honest), marked)
            lines.append([attack, half, *map(str, numbers)])
    heads = ["attack", "half", "planted", "overstated", "of them sound", "honest", "of them marked"]
    return table(heads, lines, left=2)


def shown(row: Mapping[str, Any] | None) -> str:
    """Return a number with its state, or a dash where there is no such evaluation."""
    if row is None:
        return "-"
    return row["state"] if row["printed"] is None else f"{SIGNS[row['state']]}{row['printed']:g}"


def found_by(row: Mapping[str, Any]) -> str:
    """Return the checks that fired, with the quantity that each measured."""
    fired = [each for each in row["findings"] if each["severity"] != "info"]
    return ", ".join(
        f"{each['check']} {each['value']:.2g}" if "value" in each else each["check"]
        for each in fired
    )


def lines(honest: bool) -> str:
    """Return the table of the honest members, or of the planted ones."""
    written = []
    for name, rows in members().items():
        first = rows.get("pgd20")
        if first is None or (first["kind"] == "honest") != honest:
            continue
        strongest = rows.get("adaptive")
        cells = [name.replace(":", " "), first["half"], shown(first), shown(rows.get("autoattack"))]
        cells += [found_by(first) or "-", shown(strongest), percent(first["true"])]
        written.append(cells)
    heads = ["member", "half", "pgd20", "autoattack", "found by (pgd20)", "adaptive", "true"]
    return table(heads, written, left=5)


ZOO_TABLES: Mapping[str, Callable[[], str]] = {
    "zoo-counts": counts,
    "zoo-planted": lambda: lines(honest=False),
    "zoo-honest": lambda: lines(honest=True),
}
"""The parts of zoo.md by name."""
