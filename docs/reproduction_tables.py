"""The tables of reproduction.md: published numbers that were made again, from the records.

What is known of differences beyond a point stands in ``reproduction_reasons.toml``.
"""

import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from marked_parts import table

from robustbench_cli.commands.upgrade_records import comparable
from robustbench_cli.papers import paper_names
from robustbench_cli.papers.compare import Beside, beside
from robustbench_cli.papers.reading import load_paper
from robustbench_cli.report.number_trust import derived_text
from robustbench_cli.report.training_minutes import training_minutes
from robustbench_cli.runs.records import Run

RECORDS = Path(__file__).parents[1] / "results" / "reference" / "reproduction"
HEADS = ["paper, table", "model", "measured", "published", "ours", "difference", "minutes"]
CLOSE = 1.0
"""Points within which a number counts as made again."""
REASONS = Path(__file__).with_name("reproduction_reasons.toml")
"""For some published numbers, whether the difference is explained, and what is known of it."""
UNKNOWN = {"explained": False, "why": "not looked into"}


def _made() -> dict[str, tuple[list[Beside], dict[str, Run]]]:
    """Return, by paper, the numbers that were made again, and its runs by id."""
    found = {}
    for folder in sorted(path for path in RECORDS.iterdir() if path.is_dir()):
        if folder.name not in paper_names():
            continue
        paper, runs = load_paper(folder.name), comparable(folder)
        pairs = beside(paper, paper.cells, [*runs.values()])
        found[folder.name] = [pair for pair in pairs if _made_for_it(pair)], runs
    return found


def _made_for_it(pair: Beside) -> bool:
    """Return whether a number is of the net, and the radius, that the published one is of."""
    others = ("model", "trained at eps")
    return pair.measured is not None and not any(
        apart.what.startswith(others) for apart in pair.training
    )


def _model(pair: Beside) -> str:
    """Return the method and the net of a number."""
    return ", ".join(filter(None, (pair.cell.method, pair.cell.architecture)))


def reproduced() -> str:
    """Return the table: each number beside the published one, and what differs in the setting."""
    lines = []
    for name, (pairs, runs) in _made().items():
        for pair in pairs:
            cell, measured = pair.cell, pair.measured
            assert measured
            ours, apart = _marked(pair)
            seeds = [run for run in runs.values() if _same(run, measured.trained)]
            spent = training_minutes(seeds, len(seeds))
            lines.append(
                [
                    f"{name}, {cell.table}",
                    f"{_model(pair)}, {cell.dataset}",
                    cell.attack or "clean",
                    str(cell.value),
                    ours,
                    apart,
                    spent.text if spent else "",
                ]
            )
    return table(HEADS, lines, left=3)


def _marked(pair: Beside) -> tuple[str, str]:
    """Return our number and the difference, each with the mark of its trust."""
    if pair.ours is None or pair.points is None:
        return "withheld", ""
    spread = "" if pair.std is None else f" ± {pair.std:.2f}"
    if pair.trust is None:  # a proof needs no mark
        return f"{pair.ours:.2f}{spread}", f"{pair.points:+.2f}"
    lower = "" if pair.lower is None else f"{pair.lower:.2f}"
    number = pair.trust.written(f"{pair.ours:.2f}{spread}", lower)
    return number, derived_text(pair.trust, f"{pair.points:+.2f}")


def counted() -> str:
    """Return in a sentence how many numbers were made again, and how close they came."""
    pairs = [pair for made, _ in _made().values() for pair in made]
    near = sum(_near(pair) for pair in pairs)
    spread = sum(not _near(pair) and _within_spread(pair) for pair in pairs)
    withheld = sum(pair.points is None for pair in pairs)
    far = [reason_of(name, pair) for name, pair in _far()]
    explained = sum(reason["explained"] for reason in far)
    return (
        f"{len(pairs)} numbers were made again: {near} within {CLOSE:g} point, {spread} more "
        f"within the published deviation, {len(far)} beyond, of which {explained} are explained "
        f"and {len(far) - explained} are not; {withheld} are withheld.\n"
    )


def _near(pair: Beside) -> bool:
    """Return whether a number is within a point of the published one."""
    return pair.points is not None and abs(pair.points) <= CLOSE


def _within_spread(pair: Beside) -> bool:
    """Return whether a number is within the deviation that was published with it."""
    std = pair.cell.std
    return pair.points is not None and std is not None and abs(pair.points) <= float(std)


def _far() -> Iterator[tuple[str, Beside]]:
    """Yield the numbers that are beyond both, each with the name of its paper."""
    for name, (pairs, _) in _made().items():
        for pair in pairs:
            if not (pair.points is None or _near(pair) or _within_spread(pair)):
                yield name, pair


@cache
def reasons() -> list[dict[str, Any]]:
    """Return what is known of differences: ``paper``, ``rows`` as in the papers' rules, ``why``."""
    found: list[dict[str, Any]] = tomllib.loads(REASONS.read_text())["reasons"]
    return found


def reason_of(name: str, pair: Beside) -> dict[str, Any]:
    """Return what is known of the difference of a number; the first that fits counts."""
    return next((each for each in reasons() if fits(each, name, pair)), UNKNOWN)


def fits(reason: dict[str, Any], name: str, pair: Beside) -> bool:
    """Return whether a reason is about a number of the paper ``name``."""
    cell = pair.cell
    said = all(getattr(cell, column) in texts for column, texts in reason["rows"].items())
    return said and reason["paper"] == name


def beyond() -> str:
    """Return the numbers that are beyond, with what is known, a line for each reason."""
    lines: dict[tuple[str, ...], list[str]] = {}
    for name, pair in _far():
        reason = reason_of(name, pair)
        told = "explained" if reason["explained"] else "unexplained"
        measured = f"{pair.cell.attack or 'clean'} {_marked(pair)[1]}"
        lines.setdefault((name, _model(pair), told, reason["why"]), []).append(measured)
    rows = [
        [name, method, ", ".join(measured), told, why]
        for (name, method, told, why), measured in lines.items()
    ]
    return table(["paper", "model", "difference", "", "what is known"], rows, left=5)


def apart() -> str:
    """Return what differs from the paper's setting, a line for each model and attack."""
    lines = {}
    for name, (pairs, _) in _made().items():
        for pair in pairs:
            said = ", ".join(map(str, (*pair.training, *pair.attack)))
            lines.setdefault((name, _model(pair), said), []).append(pair.cell.attack or "clean")
    rows = [
        [name, method, ", ".join(attacks), said or "nothing is known to differ"]
        for (name, method, said), attacks in lines.items()
    ]
    return table(["paper", "model", "measured", "what differs (paper)"], rows, left=4)


def _same(run: Run, trained: Run) -> bool:
    """Return whether a run is of the same training as another, of any seed."""
    return run.kind == "train" and run.id.rpartition("-s")[0] == trained.id.rpartition("-s")[0]


REPRODUCTION = {
    "reproduced": reproduced,
    "reproduced-count": counted,
    "reproduced-apart": apart,
    "reproduced-beyond": beyond,
}
