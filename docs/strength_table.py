"""The tables of suites.md on trained nets: what is left by attacks of several prices."""

import sys
from collections.abc import Callable
from pathlib import Path

from marked_parts import table
from suites_table import places, suite

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from series import AUTOATTACK, Table, kept

ROWS = kept(Path(__file__).with_name("strength.json"))
SHOWN = {
    "AutoAttack": AUTOATTACK,
    "strong": suite("strong"),
    "quick": suite("quick"),
    "apgd-t": ("apgd-t",),
    "apgd-t, malt": ("apgd-t:targeting=malt",),
    "mm9": ("mm9",),
    "mm3": ("mm3",),
    "pma": ("pma",),
    "adv-lib": ("adv-lib apgd_targeted",),
    "torchattacks": ("torchattacks APGDT",),
}
"""Heads of columns, and the attacks of each series."""


def _cells(of_series: Callable[[Table, list[int]], str]) -> dict[str, list[str]]:
    """Return what is written of each net and series, by net, in the order of their names."""
    attacks = list(dict.fromkeys(row.attack for row in ROWS))
    found = {}
    for net in sorted({row.net for row in ROWS}):
        whole = Table.of([row for row in ROWS if row.net == net], attacks)
        found[net] = [of_series(whole, places(of, attacks)) for of in SHOWN.values()]
    return found


def left() -> str:
    """Return the robust accuracy that each series leaves of each net, in per cent."""
    sizes = {row.net: f"{row.n}" for row in ROWS}
    cells = _cells(lambda net, series: f"{net.left(series)[0]:.1f}")
    lines = [[net, sizes[net], *each] for net, each in cells.items()]
    return table(["net", "images", *SHOWN], lines, left=1)


def passes() -> str:
    """Return the passes of an image that stands, for each series and net."""
    cells = _cells(lambda net, series: f"{net.price(series):,.0f}")
    return table(["net", *SHOWN], [[net, *each] for net, each in cells.items()], left=1)


STRENGTH = {"strength": left, "strength-passes": passes}
