"""The table of reproduction.md: published numbers that were made again, from the records."""

from pathlib import Path

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


def _made() -> dict[str, tuple[list[Beside], dict[str, Run]]]:
    """Return, by paper, the numbers that were made again, and its runs by id."""
    found = {}
    for folder in sorted(path for path in RECORDS.iterdir() if path.is_dir()):
        if folder.name not in paper_names():
            continue
        paper, runs = load_paper(folder.name), comparable(folder)
        pairs = beside(paper, paper.cells, [*runs.values()])
        found[folder.name] = [pair for pair in pairs if pair.measured], runs
    return found


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
                    f"{cell.method}, {cell.dataset}",
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
    if pair.ours is None or pair.points is None or pair.trust is None:
        return "withheld", ""
    spread = "" if pair.std is None else f" ± {pair.std:.2f}"
    lower = "" if pair.lower is None else f"{pair.lower:.2f}"
    number = pair.trust.written(f"{pair.ours:.2f}{spread}", lower)
    return number, derived_text(pair.trust, f"{pair.points:+.2f}")


def counted() -> str:
    """Return in a sentence how many numbers were made again, and how close they came."""
    pairs = [pair for made, _ in _made().values() for pair in made]
    points = [abs(pair.points) for pair in pairs if pair.points is not None]
    near = sum(each <= CLOSE for each in points)
    return f"{len(pairs)} numbers were made again; {near} of them within {CLOSE:g} point.\n"


def apart() -> str:
    """Return what differs from the paper's setting, a line for each model and attack."""
    lines = {}
    for name, (pairs, _) in _made().items():
        for pair in pairs:
            said = ", ".join(map(str, (*pair.training, *pair.attack)))
            lines.setdefault((name, pair.cell.method, said), []).append(pair.cell.attack or "clean")
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
}
