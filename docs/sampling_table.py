"""The table of evaluation.md: what a sampled tail costs and says, beside the whole ensemble."""

from marked_parts import table
from results_tables import REFERENCE

from robustbench_cli.commands.upgrade_records import comparable
from robustbench_cli.report.number_trust import attack_trust
from robustbench_cli.runs.records import Run


def sampling() -> str:
    """Return a line for each evaluation with ``--within`` that has a whole one beside it."""
    runs = [run for run in comparable(REFERENCE / "within").values() if run.kind == "eval"]
    whole = {(run.parent, run.n): run for run in runs if "within" not in run.config}
    lines = []
    for run in sorted(runs, key=lambda each: (each.n, each.parent or "", each.seed)):
        full = whole.get((run.parent, run.n))
        if "within" in run.config and full is not None:
            lines.append(_line(run, full))
    heads = ["net", "images", "seed", "within", "all of it", "at most", "at least"]
    return table([*heads, "seen of the tail", "passes"], lines, left=1)


def _line(run: Run, full: Run) -> list[str]:
    (mine,), (theirs,) = run.attacks.values(), full.attacks.values()
    tail = mine.sampled
    assert tail is not None
    passes, all_passes = (each.forwards + each.backwards for each in (mine, theirs))
    least = mine.robust_accuracy if mine.least is None else mine.least
    return [
        str(run.parent),
        f"{run.n:,}",
        str(run.seed),
        f"{run.config['within']:g}",
        attack_trust(full, "autoattack").written(f"{100 * theirs.robust_accuracy:.2f}"),
        attack_trust(run, "autoattack").written(f"{100 * mine.robust_accuracy:.2f}"),
        f"{100 * least:.2f}",
        f"{tail.looked_at:,} of {tail.standing:,}",
        f"{100 * passes / all_passes:.0f} %",
    ]


SAMPLING = {"sampling": sampling}
