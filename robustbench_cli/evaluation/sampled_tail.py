"""A series of attacks whose last members see as many standing images as a bound needs."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from robustbench_cli.attacks import Stage
from robustbench_cli.evaluation.eval_context import EvalContext
from robustbench_cli.evaluation.search_model import SearchModel
from robustbench_cli.evaluation.stages import AttackVerdicts, Progress, run_stages
from robustbench_cli.evaluation.tail_sampling import TailPlan, TailRule, tail_order

MARGIN_BEFORE = "margin_before"
"""The array with the margins (N) when the tail began, NaN where it has not: an evaluation that is
resumed takes the same examples for the closest."""


@dataclass(frozen=True, kw_only=True)
class SampledTail:
    """What the last members of a series have seen."""

    plan: TailPlan
    looked_at: int
    """The standing images that they have seen."""
    broken: int
    """Those of them that they broke."""
    of_closest: int
    """Those of the closest that they broke."""
    looks: int

    @property
    def whole(self) -> bool:
        """True if they have seen all, so that nothing is left open."""
        return self.looked_at == self.plan.standing

    @property
    def at_most(self) -> int:
        """The bound of what they would break of all standing images."""
        return self.plan.at_most(self.looked_at, self.broken, self.of_closest)


def run_sampled(
    stages: list[Stage],
    most: int,
    column: AttackVerdicts,
    standing: np.ndarray,
    context: EvalContext,
    exact: SearchModel,
    rule: TailRule,
) -> Iterator[Progress]:
    """Run a series as ``run_stages`` does, its last stages on a part of what stands.

    They are all stages after the first one that breaks few images, or after the first ``most``.

    Args:
        most: the number of stages that see every image at most.
        column: has ``MARGIN_BEFORE`` among its arrays.
        rule: how exactly the tail is to be known.
    """

    def few(stage: int) -> bool:
        return _broken_by(stage, column) <= rule.few

    yield from run_stages(stages[:most], column, standing, context, exact, few)
    head = _head(most, column, rule)
    order, plan = _plan(head, column, standing, context, rule)
    column.arrays[MARGIN_BEFORE][order] = _margins(column)[order]
    for looked_at in plan.looks:
        seen = np.zeros(len(standing), bool)
        seen[order[:looked_at]] = True
        yield from run_stages(stages, column, seen, context, exact)
        if plan.enough(looked_at, *_broken(head, column, order[:looked_at], plan)):
            return


def sampled_tail(
    most: int,
    column: AttackVerdicts,
    standing: np.ndarray,
    context: EvalContext,
    rule: TailRule,
) -> SampledTail:
    """Return what the last stages have seen, from the verdicts of a finished ``run_sampled``."""
    head = _head(most, column, rule)
    order, plan = _plan(head, column, standing, context, rule)
    looks = 0
    for looked_at in plan.looks:
        looks += 1
        broken = _broken(head, column, order[:looked_at], plan)
        if plan.enough(looked_at, *broken):
            break
    found, of_closest = broken
    return SampledTail(
        plan=plan, looked_at=looked_at, broken=found, of_closest=of_closest, looks=looks
    )


def _head(most: int, column: AttackVerdicts, rule: TailRule) -> int:
    """Return the number of stages that see every image."""
    few = (stage for stage in range(most) if _broken_by(stage, column) <= rule.few)
    return next(few, most - 1) + 1


def _broken_by(stage: int, column: AttackVerdicts) -> int:
    return int((column.arrays["by"] == stage).sum())


def _plan(
    head: int,
    column: AttackVerdicts,
    standing: np.ndarray,
    context: EvalContext,
    rule: TailRule,
) -> tuple[np.ndarray, TailPlan]:
    """Return the positions of what the first stages left, as the tail sees them, and the looks."""
    by = column.arrays["by"]
    left = torch.from_numpy((standing & ~((by >= 0) & (by < head))).nonzero()[0])
    margins = torch.from_numpy(_margins(column))[left]
    device = context.data.y.device
    order = tail_order(left.to(device), margins.to(device), context.noise).cpu().numpy()
    return order, rule.plan(len(order))


def _margins(column: AttackVerdicts) -> np.ndarray:
    """Return the margins (N) before the tail; what has none is the closest."""
    before, now = column.arrays[MARGIN_BEFORE], column.arrays["margin"]
    return np.asarray(np.where(np.isnan(before), np.nan_to_num(now, nan=np.inf), before))


def _broken(head: int, column: AttackVerdicts, rows: np.ndarray, plan: TailPlan) -> tuple[int, int]:
    """Return how many of these the tail broke, and how many of the closest."""
    broken = column.arrays["by"][rows] >= head
    return int(broken.sum()), int(broken[: plan.closest].sum())
