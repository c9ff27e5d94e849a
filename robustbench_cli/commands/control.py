"""The control of an evaluation whose attacks follow gradients only.

Random corners of the ball, then a few hundred queries of Square, on some of the examples that
stood.  It counts in no attack's accuracy: what it breaks says that gradients are misled.
"""

import time
from dataclasses import dataclass, replace

import numpy as np
import torch

from robustbench_cli.attacks import ATTACKS
from robustbench_cli.attacks.ensemble import Ensemble
from robustbench_cli.audit import Evidence
from robustbench_cli.audit._evidence import Control
from robustbench_cli.core.example_rng import stream_generator
from robustbench_cli.distributed.group import Shard
from robustbench_cli.evaluation.attack_loop import EvalContext
from robustbench_cli.evaluation.stages import AttackVerdicts, run_stages
from robustbench_cli.runs.outcomes import Outcome

CORNERS = 50
"""Random corners of the ball that are tried on each example."""
QUERIES = 300
"""Queries of random search on each example that random corners did not break."""


@dataclass(frozen=True, kw_only=True)
class ControlResult:
    """The examples that the control broke, and its outcome as records keep it."""

    masks: Control
    outcome: Outcome


def run_control(
    evidence: Evidence, context: EvalContext, shard: Shard, count: int
) -> ControlResult | None:
    """Run the control on examples that stood, drawn by a keyed order; None: there are none.

    Args:
        context: of the evaluation's attacks.
        count: the number of examples to try, or all that stood if there are fewer.
    """
    n, started = evidence.n, time.perf_counter()
    standing = evidence.standing.nonzero()[0]
    order = torch.randperm(
        len(standing), generator=stream_generator(context.noise.seed, "control")
    ).numpy()
    tried = np.zeros(n, bool)
    tried[standing[order[:count]]] = True
    if not tried.any():
        return None
    attack = Ensemble(of=(f"corners{CORNERS}", f"square:queries={QUERIES},rescale=true"))
    stages = attack.stages(context.threat, evidence.classes)
    column = AttackVerdicts.empty(n)
    context = replace(context, noise=context.noise.fork("control"))
    for _ in run_stages(stages, column, tried & shard.mine(n), context, context.search_model):
        pass
    seconds = shard.merge_rows(column.arrays, n, time.perf_counter() - started)
    broken = [tried & (column.arrays["by"] == number) for number in range(len(stages))]
    members = [stage.member for stage in stages]
    counts = {member: int(rows.sum()) for member, rows in zip(members, broken, strict=True)}
    left = int(tried.sum()) - sum(counts.values())
    outcome = Outcome(
        params=ATTACKS.describe(attack),
        n=int(tried.sum()),
        correct=left,
        robust_accuracy=left / int(tried.sum()),
        forwards=int(column.arrays["forwards"].sum()),
        backwards=int(column.arrays["backwards"].sum()),
        seconds=seconds,
        broken_by=counts,
        stages=members,
    )
    corners, search = broken
    return ControlResult(
        masks=Control(tried=tried, corners=corners, search=search), outcome=outcome
    )
