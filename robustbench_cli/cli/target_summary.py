"""What attacks with a target reached, as a table of its own below the accuracies."""

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from robustbench_cli.core.safe_text import one_line
from robustbench_cli.report.number_trust import LOWER_BOUND_SIGN, target_trust
from robustbench_cli.runs.outcomes import TargetedOutcome
from robustbench_cli.runs.records import Run

TARGETS_MEANING = (
    "targets reached = images made into their target class, of those that are right and of another "
    "class as they are; it is no robust accuracy and has no part in one"
)


def target_summary(run: Run) -> list[RenderableType]:
    """Return the table of an evaluation's attacks with a target and its notes; empty without any.

    A number that means nothing is not among them.
    """
    if not run.targeted:
        return []
    far = any(each.minimal for each in run.targeted.values())
    several = any(each.reached_by for each in run.targeted.values())
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("attack with a target")
    for title in ("targets reached", "reached", "of", *["distance"] * far, "seconds"):
        table.add_column(title, justify="right")
    if several:
        table.add_column("reached by")
    for label, each in run.targeted.items():
        trust = target_trust(run, label)
        known = each.success_rate is not None and not trust.withheld
        rate = f"{each.success_rate or 0:.2%}" if each.n else "-"
        distance = "∞" if each.median_norm is None else f"{each.median_norm:.4f}"
        table.add_row(
            escape(each.titled(label)),
            trust.written(rate, sign=LOWER_BOUND_SIGN) if each.n else rate,
            str(each.reached) if known else "",
            str(each.n),
            *[distance if each.minimal and known else ""] * far,
            f"{each.seconds:.1f}",
            *[escape(_members(each)) if known else ""] * several,
        )
    return [table, *(Text(one_line(line)) for line in _notes(run))]


def _notes(run: Run) -> list[str]:
    bounded = any(target_trust(run, label).trust == "upper bound" for label in run.targeted)
    left_out = [
        f"{label}: left out {each.of_the_target} of the target's class and {each.wrong} that are "
        "wrong as they are"
        for label, each in run.targeted.items()
    ]
    more = [f"{LOWER_BOUND_SIGN} = a lower bound: something hides the truth, more may be reached"]
    return [TARGETS_MEANING, *left_out, *more * bounded]


def _members(outcome: TargetedOutcome) -> str:
    return ", ".join(f"{member} {count}" for member, count in outcome.reached_by.items())
