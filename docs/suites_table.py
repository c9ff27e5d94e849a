"""The table of suites.md: what series of attacks leave of nets, and what they cost."""

import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from marked_parts import table

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from series import AUTOATTACK, Table, kept

ROOT = Path(__file__).parents[1]
SHOWN = (
    ("mm3",),
    ("mm9",),
    ("mm+",),
    ("pma",),
    ("md",),
    ("apgd-t",),
    ("apgd-ce",),
    ("square:queries=300",),
    ("mm9", "square:queries=300"),
    ("mm3", "square:rescale=false", "apgd-t"),
)
"""Series beside the suites: single attacks, and two that nearly do."""
KINDS = (("tune", True), ("report", True), ("tune", False), ("report", False))
"""The half of the nets, and whether they are planted."""


def suite(name: str) -> tuple[str, ...]:
    """Return the members of a shipped suite that is one series."""
    found = tomllib.loads((ROOT / "presets" / "suites" / f"{name}.toml").read_text())
    return tuple(found["attack"][name]["of"])


def series_table() -> str:
    """Return a line for each series: points above AutoAttack by kind of net, and the cost."""
    rows = kept()
    attacks = list(dict.fromkeys(row.attack for row in rows))
    of = {
        kind: Table.of([row for row in rows if (row.half, row.planted) == kind], attacks)
        for kind in KINDS
    }
    every = Table.of(rows, attacks)
    named = {
        "**AutoAttack**": AUTOATTACK,
        "**quick**": suite("quick"),
        "**strong**": suite("strong"),
    }
    lines = []
    for name, members in [*named.items(), *(("", each) for each in SHOWN)]:
        series = places(members, attacks)
        whole = places(AUTOATTACK, attacks)
        cells = [" / ".join((name, *members) if name else members).replace("** / ", "**: ")]
        for kind in KINDS:
            more = of[kind].left(series) - of[kind].left(whole)
            cells.append(f"{more.mean():+.1f} ({more.max():+.1f})")
        spent = every.spent(series) / every.spent(whole)
        lines.append([*cells, f"{every.price(series):,.0f}", f"{spent:.2f}"])
    heads = ["series", "planted, searched", "planted, held out", "honest, searched"]
    return table([*heads, "honest, held out", "passes", "cost"], lines, left=1)


def series_nets() -> str:
    """Return in a sentence how many nets and images there are."""
    rows = [row for row in kept() if row.attack == "apgd-ce"]
    halves = {half: [row for row in rows if row.half == half] for half in ("tune", "report")}
    counts = {half: (len(each), sum(row.planted for row in each)) for half, each in halves.items()}
    n = int(np.median([row.n for row in rows]))
    (searched, masked), (held, also) = counts["tune"], counts["report"]
    return (
        f"{searched} nets ({masked} of them planted) were searched on, {held} ({also}) held out, "
        f"{n} images each."
    )


def places(members: Sequence[str], attacks: Sequence[str]) -> list[int]:
    """Return where the members of a series are among all attacks."""
    return [attacks.index(member) for member in members]


SUITES = {"suites": series_table, "suites-nets": series_nets}
