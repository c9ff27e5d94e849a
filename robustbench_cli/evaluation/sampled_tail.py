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


@dataclass(frozen=True, kw_only=True)
class SampledTail:
    """What the last members of a series have seen."""

    plan: TailPlan
    looked_at: int
    """The standing images that they have seen."""
    broken: int
    """Those of them that they broke."""
    looks: int

    @property
    def whole(self) -> bool:
        """True if they have seen all, so that nothing is left open."""
        return self.looked_at == self.plan.standing

    @property
    def at_most(self) -> int:
        """The bound of what they would break of all standing images."""
        return self.plan.at_most(self.looked_at, self.broken)


def run_sampled(
    stages: list[Stage],
    head: int,
    column: AttackVerdicts,
    standing: np.ndarray,
    context: EvalContext,
    exact: SearchModel,
    rule: TailRule,
) -> Iterator[Progress]:
    """Run a series as ``run_stages`` does, its last stages on a random part of what stands.

    Args:
        head: the number of stages that see every image.
        rule: how exactly the tail is to be known.
    """
    yield from run_stages(stages[:head], column, standing, context, exact)
    order, plan = _plan(head, column, standing, context, rule)
    for looked_at in plan.looks:
        seen = np.zeros(len(standing), bool)
        seen[order[:looked_at]] = True
        yield from run_stages(stages, column, seen, context, exact)
        if plan.enough(looked_at, _broken(head, column, order[:looked_at])):
            return


def sampled_tail(
    head: int,
    column: AttackVerdicts,
    standing: np.ndarray,
    context: EvalContext,
    rule: TailRule,
) -> SampledTail:
    """Return what the last stages have seen, from the verdicts of a finished ``run_sampled``."""
    order, plan = _plan(head, column, standing, context, rule)
    looks = 0
    for looked_at in plan.looks:
        looks += 1
        broken = _broken(head, column, order[:looked_at])
        if plan.enough(looked_at, broken):
            break
    return SampledTail(plan=plan, looked_at=looked_at, broken=broken, looks=looks)


def _plan(
    head: int,
    column: AttackVerdicts,
    standing: np.ndarray,
    context: EvalContext,
    rule: TailRule,
) -> tuple[np.ndarray, TailPlan]:
    """Return the positions of what the first stages left, in keyed order, and the looks."""
    by = column.arrays["by"]
    left = torch.from_numpy((standing & ~((by >= 0) & (by < head))).nonzero()[0])
    order = tail_order(left.to(context.data.y.device), context.noise).cpu().numpy()
    return order, rule.plan(len(order))


def _broken(head: int, column: AttackVerdicts, rows: np.ndarray) -> int:
    return int((column.arrays["by"][rows] >= head).sum())
