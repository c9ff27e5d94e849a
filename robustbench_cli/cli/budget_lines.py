"""What the summary of an evaluation says of its budget: a line for each member of each attack."""

from robustbench_cli.core.safe_text import one_line
from robustbench_cli.runs.budget_spent import BudgetSpent, MemberProgress
from robustbench_cli.runs.records import Run


def budget_lines(run: Run) -> list[str]:
    """Return what was spent; where the budget ran out, how far each member of each attack came."""
    if (spent := run.budget) is None:
        return []
    lines = [_spent(spent)]
    if spent.ran_out:
        lines.append(f"  clean: {spent.classified} of {run.n} images classified")
        lines += [
            _progress(label, each)
            for label, outcome in run.attacks.items()
            if outcome.budgeted
            for each in outcome.budgeted.members
        ]
        lines.append("to go on: the same command with a larger budget, or with none")
    return list(map(one_line, lines))


def _spent(spent: BudgetSpent) -> str:
    enough = "ran out" if spent.ran_out else "was enough"
    return f"budget {spent.asked} {enough}: {spent.passes} passes, {spent.seconds:.1f} s"


def _progress(label: str, each: MemberProgress) -> str:
    name = label if label == each.member else f"{label} {each.member}"
    several = f", {each.stages_finished} of {each.stages} restarts or targets on all"
    return f"  {name}: finished on {each.finished} of {each.of} images" + several * (
        each.stages > 1
    )
