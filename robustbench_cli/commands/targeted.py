"""Attacks with a target in an evaluation: what is refused, and the figures of what they reached.

These are kept apart from robust accuracies everywhere: another name in the record, another column
in tables, no part in the worst case.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from robustbench_cli.attacks import Attack, Stage
from robustbench_cli.audit import JudgedAttack
from robustbench_cli.commands.sweep import SweepPoint
from robustbench_cli.config.schema import EvalConfig
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.robust_shares import within_radius
from robustbench_cli.core.threat import Threat
from robustbench_cli.evaluation.stages import AttackVerdicts
from robustbench_cli.evaluation.targets import LEFT_OUT, check_target
from robustbench_cli.runs.outcomes import TargetedOutcome

TARGET = "target"
"""The name, among the arrays of a column, of the classes to reach (N); -1: left out."""


def check_targets(attacks: Mapping[str, Attack], classes: int) -> None:
    """Check that every attack with a target can have it.

    Raises:
        UserError: it has no meaning for the attack, or is no class.
    """
    for label, attack in attacks.items():
        if attack.target is None:
            continue
        if attack.no_target:
            raise UserError(f"attack {label!r} takes no target: {attack.no_target}")
        check_target(attack.target, classes)


def check_images_to_take(
    attacks: Mapping[str, Attack], threat: Threat, y: Tensor, classes: Sequence[str]
) -> None:
    """Check that attacks which take images of some classes find them.

    Args:
        y: labels (N) of the images that they can take.
        classes: names of all classes.

    Raises:
        UserError: there is no image of another class, or of one that may be a target.
    """
    there = set(torch.unique(y).tolist())
    for label, attack in attacks.items():
        target, members = attack.target, attack.members(threat, len(classes)).values()
        if not any(member.takes_images for member in members):
            continue
        if target is None and len(there) == 1:
            raise UserError(
                f"attack {label!r} takes images of other classes, and all {len(y)} images that "
                f"there are have class {classes[there.pop()]!r}"
            )
        wanted = [target] if isinstance(target, int) else range(len(classes))
        lacking = [classes[each] for each in wanted if each not in there]
        if target is not None and lacking:
            raise UserError(
                f"attack {label!r} takes images of the class to reach, and none of the {len(y)} "
                f"images that there are has class {lacking[0]!r}: choose another target"
            )


def refuse_sweep(attacks: Mapping[str, Attack]) -> None:
    """Refuse a sweep of attacks with a target.

    Raises:
        UserError: there is such an attack.
    """
    if label := next((k for k, attack in attacks.items() if attack.target is not None), ""):
        raise UserError(
            f"attack {label!r}: a sweep is of robust accuracies, and an attack with a target has "
            "none; evaluate it once for each value"
        )


def refuse_targets(config: EvalConfig, why: str) -> None:
    """Refuse attacks with a target where only robust accuracies have a meaning.

    Args:
        why: what the command is about, "an audit grades a robust accuracy".

    Raises:
        UserError: there is such an attack.
    """
    for label, table in config.attack.items():
        if table.get(TARGET) is not None:
            raise UserError(f"attack {label!r}: {why}; leave target={table[TARGET]} out")


def reached(point: SweepPoint, column: AttackVerdicts) -> np.ndarray:
    """Return how often the target of each example was reached (N), NaN where it is left out.

    It is 0 or 1, or for a randomised model a share of its draws.
    """
    a = column.arrays
    share = 1.0 - a["share"]
    if point.attack.minimal:
        share = (column.broken & within_radius(a["norm"], point.threat.eps)).astype(float)
    return np.where(a[TARGET] == LEFT_OUT, np.nan, share)


def summarize_target(
    point: SweepPoint,
    stages: Sequence[Stage],
    column: AttackVerdicts,
    clean: AttackVerdicts,
    seconds: float,
    classes: int,
) -> TargetedOutcome:
    """Return the figures of one attack with a target, as its record keeps them.

    Args:
        stages: of the attack, in order.
        column: the verdicts under the attack (N).
        clean: the verdicts on the clean images (N).
        seconds: that the attack took, over all processes.
        classes: the number of classes.
    """
    a, share = column.arrays, reached(point, column)
    tried = a[TARGET] != LEFT_OUT
    n, found = int(tried.sum()), share[tried]
    members = [stage.member for stage in stages]
    by = Counter(members[stage] for stage in a["by"][column.broken])
    several = len({*members}) > 1
    median = float(np.median(a["norm"][tried])) if point.attack.minimal and n else math.inf
    right = clean.arrays["share"] > 0
    assert point.attack.target is not None
    return TargetedOutcome(
        params=point.params,
        target=str(point.attack.target),
        n=n,
        reached=int((found > 0.5).sum()),
        success_rate=float(found.mean(dtype=float)) if n else None,
        of_the_target=int((right & ~tried).sum()),
        wrong=int((~right).sum()),
        forwards=int(a["forwards"].sum()),
        backwards=int(a["backwards"].sum()),
        seconds=seconds,
        reached_by={member: by[member] for member in members} if several else {},
        stages=members if several else [],
        minimal=point.attack.minimal,
        median_norm=median if math.isfinite(median) else None,
        variant=point.attack.variant(point.threat, classes),
    )


def judged_target(
    point: SweepPoint, stages: Sequence[Stage], column: AttackVerdicts
) -> JudgedAttack:
    """Return the verdicts under an attack with a target as checks look at them."""
    share = np.nan_to_num(reached(point, column))
    return JudgedAttack(
        label=point.label,
        attack=point.attack,
        stages=stages,
        eps=point.threat.eps,
        swept=False,
        broken=share > 0.5,
        share=1 - share,
        by=column.arrays["by"],
        step=column.arrays["step"],
        tried=column.arrays["stages"],
        zero_gradient=column.arrays["flat"],
    )
