"""``--budget``: an evaluation that stops when it has spent so much, and what is known by then."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from robustbench_cli.attacks import Attack, IterativeAttack, Stage
from robustbench_cli.attacks._base import ENOUGH_CLASSES
from robustbench_cli.commands.attack_outcomes import AttackOutcomes
from robustbench_cli.commands.attack_summary import robust_share
from robustbench_cli.commands.sweep import SweepPoint
from robustbench_cli.config.schema import EvalConfig
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.threat import Threat
from robustbench_cli.distributed import env
from robustbench_cli.evaluation.budget import Allowance, Budget
from robustbench_cli.evaluation.stages import AttackVerdicts
from robustbench_cli.report.columns import CLEAN
from robustbench_cli.runs.budget_spent import BudgetedOutcome, MemberProgress
from robustbench_cli.runs.outcomes import Outcome
from robustbench_cli.runs.recorder import Recorder
from robustbench_cli.runs.trust import Finding, Trust

BUDGET = "budget"
"""The name under which findings say that a budget ran out."""


def check_budget(budget: Budget | None, config: EvalConfig) -> None:
    """Check that a budget makes sense for what was asked.

    Raises:
        UserError: bounds of what is left open would have no meaning.
    """
    if budget is None:
        return
    said = f"--budget {budget.text}"
    if env.world() > 1:
        raise UserError(f"{said} is spent by one process: run it without torchrun")
    reasons = {
        "sweep": (config.sweep, "a sweep has many accuracies and one order"),
        "certify": (config.certify, "a certificate has no bounds of this kind"),
        "within": (config.within, "its confidence holds only for looks that are finished"),
        "reject-class": ("class" in config.reject, "what is rejected would have no bounds"),
        "detector": ("detector" in config.reject, "what is rejected would have no bounds"),
    }
    for option, (given, reason) in reasons.items():
        if given:
            raise UserError(f"{said} goes without --{option}: {reason}")


def check_budgeted(
    budget: Budget | None, attacks: Mapping[str, Attack], threat: Threat, *, random: bool = False
) -> None:
    """Check that a budget makes sense for these attacks on this model.

    Args:
        random: whether the model is known to be randomised.

    Raises:
        UserError: bounds of what is left open would have no meaning, or the cost of an attack is
            not known beforehand.
    """
    if budget is None:
        return
    said = f"--budget {budget.text}"
    if random:
        raise UserError(f"{said}: the model is randomised, so no verdict is final; leave it out")
    for label, attack in attacks.items():
        if reason := _without_bounds(attack, attack.stages(threat, ENOUGH_CLASSES)):
            raise UserError(f"{said} goes without attack {label!r}, which {reason}")


def _without_bounds(attack: Attack, stages: Sequence[Stage]) -> str:
    """Return why a budget says nothing of an attack; empty: it does."""
    reasons = {
        "has a target: a share of targets reached has no such bounds": attack.target is not None,
        "measures distances: those of some images say nothing of all": attack.minimal,
        "is fitted to all of its images before it attacks one": attack.fits,
        "runs in code that tells what it costs only when it is done": not all(
            isinstance(stage.attack, IterativeAttack) for stage in stages
        ),
    }
    return next((reason for reason, applies in reasons.items() if applies), "")


@contextmanager
def spending(
    budget: Budget | None,
    allowance: Allowance,
    columns: Mapping[str, AttackVerdicts],
    recorder: Recorder,
) -> Iterator[None]:
    """Let a budget be spent while the context is open, and record what was, whatever happens.

    Args:
        allowance: what is left of the budget.
        columns: the verdicts by label, on the clean images, too; they are filled meanwhile.
    """
    if budget is None:
        recorder.update(budget=None)
        yield
        return
    allowance.start()
    try:
        yield
    finally:
        allowance.stop()
        known = classified(columns[CLEAN]) if CLEAN in columns else 0
        left = any(column.pending for column in columns.values())
        recorder.update(budget=budget.spent(allowance, classified=known, ran_out=left))


def with_progress(
    outcomes: AttackOutcomes,
    point: SweepPoint,
    column: AttackVerdicts,
    clean: AttackVerdicts,
    budget: Budget | None,
) -> None:
    """Add to an attack's outcome how far it has come, if there is a budget.

    Args:
        column: the verdicts under the attack.
        clean: those on the clean images.
    """
    if budget is None:
        return
    stages = point.attack.stages(point.threat, outcomes.classes)
    share = robust_share(point, column, clean)
    undecided, outcome = column.undecided & (share > 0), outcomes.attacks[point.label]
    progress = BudgetedOutcome(
        undecided=int(undecided.sum()),
        least=float((share * ~undecided).mean(dtype=float)),
        members=_members(stages, column, clean.arrays["share"] > 0),
    )
    said = f"budget {budget.text}" if progress.undecided else ""
    variant = ", ".join(filter(None, (outcome.variant, said)))
    outcomes.attacks[point.label] = replace(outcome, budgeted=progress, variant=variant)


def _members(
    stages: Sequence[Stage], column: AttackVerdicts, standing: np.ndarray
) -> list[MemberProgress]:
    """Return how far each member has come.

    Args:
        standing: the examples that the attack is for, a mask (N).
    """
    places: dict[str, list[int]] = {}
    for number, stage in enumerate(stages):
        places.setdefault(stage.member, []).append(number)
    none = np.zeros(len(standing), bool)
    found = []
    for member, mine in places.items():
        left = np.any([none, *(column.pending.get(each, none) for each in mine)], axis=0)
        done = standing & (column.arrays["stages"] > mine[0]) & ~left
        found.append(
            MemberProgress(
                member=member,
                finished=int(done.sum()),
                of=int(done.sum()) + int(left.sum()),
                stages=len(mine),
                stages_finished=sum(each not in column.pending for each in mine),
            )
        )
    return found


def classified(clean: AttackVerdicts) -> int:
    """Return the number of clean images that have been classified."""
    return int((~clean.undecided).sum())


def budget_findings(
    budget: Budget | None,
    outcomes: Mapping[str, Outcome],
    clean: AttackVerdicts,
) -> list[Finding]:
    """Return what is to be said of numbers that a budget has left open.

    Args:
        outcomes: of the attacks, by label.
        clean: the verdicts on the clean images.
    """
    if budget is None:
        return []
    found = []
    n, known = len(clean.undecided), classified(clean)
    if known < n:
        share = clean.arrays["share"]
        least, most = (
            float((share * ~clean.undecided).mean(dtype=float)),
            float(share.mean(dtype=float)),
        )
        found.append(
            Finding(
                check=BUDGET,
                severity="warning",
                message=f"the budget of {budget.text} ran out: {known} of {n} images are "
                f"classified; clean accuracy {least:.2%} to {most:.2%}",
                attacks=[CLEAN],
                clean=True,
                images=known,
                of=n,
                accuracy=least,
                confidence=1.0,
            )
        )
    return [*found, *(_finding(budget, *each) for each in outcomes.items() if is_open(each[1]))]


def is_open(outcome: Outcome) -> bool:
    """Return whether a budget has left something open of an attack."""
    return outcome.budgeted is not None and outcome.budgeted.undecided > 0


def _finding(budget: Budget, label: str, outcome: Outcome) -> Finding:
    left = outcome.budgeted
    assert left is not None
    done = outcome.n - left.undecided
    return Finding(
        check=BUDGET,
        severity="warning",
        message=(
            f"the budget of {budget.text} ran out: {done} of {outcome.n} images are decided; "
            f"robust accuracy {left.least:.2%} if all others fall, "
            f"{outcome.robust_accuracy:.2%} if none does"
        ),
        attacks=[label],
        images=done,
        of=outcome.n,
        accuracy=left.least,
        confidence=1.0,
    )


def worst_with_budget(outcomes: Mapping[str, Outcome], trust: Trust) -> Trust:
    """Return the trust in the worst case: an upper bound where a budget has left something open."""
    better = trust in ("sound", "unchecked")
    return "upper bound" if better and any(map(is_open, outcomes.values())) else trust
