"""The tables of suites.md on trained nets: what is left by attacks of several prices."""

import sys
from pathlib import Path

from marked_parts import table
from suites_table import suite

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


def _tables() -> dict[str, Table]:
    """Return the table of each net, in the order of their names."""
    attacks = _attacks()
    return {net: Table.of([row for row in ROWS if row.net == net], attacks) for net in _nets()}


def _attacks() -> list[str]:
    return list(dict.fromkeys(row.attack for row in ROWS))


def _nets() -> list[str]:
    return sorted({row.net for row in ROWS})


def left() -> str:
    """Return the robust accuracy that each series leaves of each net, in per cent."""
    attacks, lines = _attacks(), []
    for net, of in _tables().items():
        cells = [
            f"{of.left([attacks.index(member) for member in members])[0]:.1f}"
            for members in SHOWN.values()
        ]
        lines.append([net, f"{of.sizes[0]}", *cells])
    return table(["net", "images", *SHOWN], lines, left=1)


def passes() -> str:
    """Return the passes of an image that stands, for each series and net."""
    attacks, lines = _attacks(), []
    for net, of in _tables().items():
        cells = [
            f"{of.price([attacks.index(member) for member in members]):,.0f}"
            for members in SHOWN.values()
        ]
        lines.append([net, *cells])
    return table(["net", *SHOWN], lines, left=1)


STRENGTH = {"strength": left, "strength-passes": passes}
