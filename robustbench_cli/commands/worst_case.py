"""The accuracy that is left by all attacks of an evaluation together, example by example."""

from collections.abc import Mapping, Sequence

import numpy as np

from robustbench_cli.commands.attack_summary import robust_share
from robustbench_cli.commands.sweep import SweepPoint
from robustbench_cli.evaluation.stages import AttackVerdicts
from robustbench_cli.runs.outcomes import Outcome


def worst_case_figures(
    todo: Sequence[SweepPoint],
    columns: Mapping[str, AttackVerdicts],
    clean: AttackVerdicts,
    outcomes: Mapping[str, Outcome],
) -> dict[str, object]:
    """Return the fields of the record that say it: the accuracy, and its lower end if it has one.

    At the lower end fall all examples that a budget left open, and for each sampled tail as many
    more as it might break: other ones for every attack, at worst.

    Args:
        todo: the attacks; those with a target have no part in it.
        columns: the verdicts under each of them, by label.
        clean: those on the clean images.
        outcomes: of the attacks, by label.
    """
    standing, undecided = clean.arrays["share"].astype(float), clean.undecided
    for point in (each for each in todo if each.attack.target is None):
        column = columns[point.label]
        standing = np.minimum(standing, robust_share(point, column, clean))
        undecided = undecided | column.undecided
    most = float(standing.mean(dtype=float))
    least = float((standing * ~undecided).mean(dtype=float))
    for each in outcomes.values():
        if each.sampled is not None:
            least -= (each.sampled.broken_at_most - each.sampled.broken) / each.n
    bounded = least < most
    return {
        "worst_case_accuracy": most,
        "worst_case_least": max(0.0, least) if bounded else None,
    }
