"""``--within POINTS --widen``: as many test images as the intervals need to be that narrow."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from robustbench_cli.attacks import Attack
from robustbench_cli.attacks._base import ENOUGH_CLASSES
from robustbench_cli.commands.eval_request import EvalRequest
from robustbench_cli.commands.subset import counted_images, test_images
from robustbench_cli.commands.sweep import SweepPoint
from robustbench_cli.commands.worst_case import worst_case_figures
from robustbench_cli.config.schema import EvalConfig
from robustbench_cli.core.errors import UserError
from robustbench_cli.distributed.group import Shard
from robustbench_cli.evaluation.sequential_n import Look, planned_sizes
from robustbench_cli.evaluation.stages import AttackVerdicts
from robustbench_cli.report.columns import CLEAN
from robustbench_cli.runs import records
from robustbench_cli.runs.outcomes import Outcome
from robustbench_cli.runs.widened_n import WidenedN


def check_widening(request: EvalRequest) -> None:
    """Check that an evaluation can take ever more images.

    Raises:
        UserError: it was not asked how narrow an interval is to be, or what else was asked for has
            no such interval.
    """
    config = request.config
    if not config.widen:
        return
    if config.within is None:
        raise UserError("--widen goes with --within POINTS: how narrow the intervals are to be")
    reasons = {
        "--budget": (request.budget, "bounds of what is left open would hide the intervals"),
        "--certify": (config.certify, "a certificate has no interval of this kind"),
        "--balanced": (config.subset.balanced, "classes that take turns are no random draw"),
        "--detector": ("detector" in config.reject, "its threshold is set on images left over"),
    }
    for option, (given, reason) in reasons.items():
        if given:
            raise UserError(f"--widen goes without {option}: {reason}")
    for label, table in config.attack.items():
        if "target" in table:
            raise UserError(f"--widen goes without attack {label!r}, which has a target")


def in_random_order(config: EvalConfig) -> EvalConfig:
    """Return the configuration with a random order of the images, if none was chosen."""
    if config.subset.shuffle is not None:
        return config
    return replace(config, subset=replace(config.subset, shuffle=config.seed))


def run_widened(
    request: EvalRequest, shard: Shard, evaluate: Callable[[EvalRequest], Path]
) -> Path:
    """Evaluate ever more images until the intervals are narrow enough; return the folder.

    Each look goes on with the verdicts of the one before.

    Args:
        evaluate: runs one look, that of the request.
    """
    request = replace(request, config=in_random_order(request.config))
    chosen = counted_images(test_images(request, shard), request.config)
    sizes = planned_sizes(request.config.n or len(chosen))
    for number in range(len(sizes)):
        folder = evaluate(replace(request, look=Look(sizes=sizes, number=number)))
        widened = records.read(folder).widened
        if widened is None or (not widened.goes_on and number + 1 == widened.looks):
            break
    return folder


def sampled_series(attacks: Mapping[str, Attack], config: EvalConfig) -> int:
    """Return how many of the attacks are series whose last members may see a part."""
    return sum(
        each.first_members(each.stages(config.threat, ENOUGH_CLASSES)) is not None
        for each in attacks.values()
    )


def intervals(
    look: Look,
    config: EvalConfig,
    todo: Sequence[SweepPoint],
    columns: Mapping[str, AttackVerdicts],
    outcomes: Mapping[str, Outcome],
) -> WidenedN:
    """Return the intervals at a look.

    Args:
        todo: the attacks.
        columns: the verdicts under each of them and on the clean images, by label.
        outcomes: of the attacks, by label.
    """
    assert config.within is not None
    clean, n = columns[CLEAN], look.n
    right = float(np.sum(clean.arrays["share"], dtype=float))
    found = {}
    for label, each in outcomes.items():
        tail = each.sampled
        # What other looks have seen of the tail has no part in it: the look alone decides.
        known = n * each.robust_accuracy if tail is None else tail.standing - tail.broken
        least = known if tail is None else tail.standing - tail.broken_at_most
        found[label] = look.interval(least, known, sampled=tail is not None)
    worst = None
    if len(outcomes) > 1:
        figures = worst_case_figures(todo, columns, clean, outcomes)
        most, least_ = figures["worst_case_accuracy"], figures["worst_case_least"]
        assert isinstance(most, float)
        sampled = any(each.sampled is not None for each in outcomes.values())
        lower = least_ if isinstance(least_, float) else most
        worst = look.interval(n * lower, n * most, sampled=sampled)
    return WidenedN(
        asked=config.within,
        sizes=list(look.sizes),
        looks=look.number + 1,
        alpha=look.alpha,
        clean=look.interval(right, right),
        attacks=found,
        worst=worst,
    )
