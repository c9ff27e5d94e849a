"""The tables of retrieval.md that come from records of single runs, not of a study."""

from collections.abc import Mapping
from pathlib import Path

from marked_parts import table

from robustbench_cli.commands.upgrade_records import comparable
from robustbench_cli.metric_learning.retrieval._score import SCORE_PARTS, robustness_score
from robustbench_cli.papers.reading import load_paper

REFERENCE = Path(__file__).parents[1] / "results" / "reference"
DIGITS, MNIST = REFERENCE / "retrieval-digits", REFERENCE / "retrieval-mnist"
PARTS = ("CA+", "CA-", "QA+", "QA-", "TMA", "ES:D", "ES:R", "LTM", "GTM", "GTT", "ERS")
LENGTHS = ("TMA", "ES:D")
"""Measures that are no shares."""


def _measures(folder: Path) -> dict[str, dict[tuple[str, str], float | None]]:
    """Return every measure by training, then by row and name."""
    found: dict[str, dict[tuple[str, str], float | None]] = {}
    runs = comparable(folder)
    for run in (each for each in runs.values() if each.kind == "retrieve"):
        name = run.subject.removeprefix("metric ").partition(":")[0]
        for each in run.measures:
            found.setdefault(name, {}).setdefault((each.of, each.name), each.value)
    return found


def _percent(value: float | None) -> str:
    return "withheld" if value is None else f"{100 * value:.1f}"


def ten_attacks() -> str:
    """Return what all ten attacks leave on the digits."""
    lines = []
    for name, found in _measures(DIGITS).items():
        worst = found["all eps=0.15", "R@1"]
        shown = [found["clean", "R@1"], found["untargeted eps=0.15", "R@1"], worst]
        ers = found["all eps=0.15", "ERS"]
        cells = [*map(_percent, shown), "withheld" if ers is None else f"{ers:.2f}"]
        lines.append([f"`{name}`", *cells])
    heads = ["trained by", "clean R@1", "`untargeted`", "all ten attacks", "ERS"]
    return table(heads, lines, left=1)


def c2f2() -> str:
    """Return the measures of C2F2 on MNIST, each beside what was published on Fashion-MNIST."""
    published = _published()
    lines = []
    for name, found in _measures(MNIST).items():
        of = {part: row for row, part in found if part in PARTS and row != "clean"}
        cells = [_percent(found["clean", "R@1"])]
        for part in PARTS:
            value = found[of[part], part]
            whole = part in LENGTHS and value is not None
            cells.append(f"{value:.3f}" if whole else _percent(value))
        lines.append([f"`{name}`", "MNIST, short", *cells])
        if name in published:
            lines.append([f"`{name}`", "Fashion-MNIST, published", *published[name]])
    return table(["trained by", "on", "R@1", *PARTS], lines, left=2)


def _published() -> dict[str, list[str]]:
    """Return the rows of robrank's notes; the score follows from their parts."""
    paper, rows = load_paper("robust-dml"), {}
    for cell in paper.only("robrank"):
        if cell.method.endswith("ptripletN"):
            rows.setdefault(paper.methods[cell.method], {})[cell.metric] = cell.value
    return {
        name: [f"{100 * row['R@1']:.1f}", *(f"{row[part]:g}" for part in PARTS[:-1]), _score(row)]
        for name, row in rows.items()
    }


def _score(row: Mapping[str, float]) -> str:
    """Return the score of ten published measures, shares of them in per cent."""
    shares = {part: row[part] / (1 if part in LENGTHS else 100) for part in SCORE_PARTS}
    return f"{100 * robustness_score(shares):.1f}"


def pushed() -> str:
    """Return R@1 of C2F2 on MNIST when the query is pushed from its class, by radius."""
    radii = ("0.1", "0.2", "77/255")
    lines = [
        [f"`{name}`", *(_percent(found[f"untargeted eps={eps}", "R@1"]) for eps in radii)]
        for name, found in _measures(MNIST).items()
    ]
    return table(["trained by", *radii], lines, left=1)


RETRIEVAL = {
    "retrieval-ten": ten_attacks,
    "retrieval-mnist": c2f2,
    "retrieval-mnist-untargeted": pushed,
}
