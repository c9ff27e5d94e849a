"""The control of an evaluation whose attacks follow gradients only.

Random corners of the ball, a few hundred queries of Square, then short targeted steps, on some of
the examples that stood.  It counts in no attack's accuracy: what it breaks says that gradients are
misled, or that the class which seems nearest is a decoy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from robustbench_cli.attacks import ATTACKS
from robustbench_cli.attacks.ensemble import Ensemble
from robustbench_cli.audit import Evidence
from robustbench_cli.audit._evidence import AttackedAgain, Control
from robustbench_cli.commands.attack_columns import AttackColumns
from robustbench_cli.commands.sweep import SweepPoint
from robustbench_cli.core.example_rng import stream_generator
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.evaluation.budget import Allowance
from robustbench_cli.evaluation.stages import AttackVerdicts
from robustbench_cli.runs.outcomes import Outcome

CORNERS = 20
"""Random corners of the ball that are tried on each example."""
AGAIN_TRIED = 16
"""Examples of a sweep that are attacked again."""
INSIDE = 0.92
"""The radius of the control, as a fraction of eps.  A model may guard the border of the ball, where
gradient attacks end; inside, random search is nearly as strong."""
QUERIES = 200
"""Queries of random search on each example that random corners did not break."""
TARGETED = "apgd-t:steps=10,targets=3"
"""Steps towards each of the three likeliest wrong classes, on each example that is left."""
CORNER = f"corners{CORNERS}"
SEARCHES = (f"square{QUERIES}", f"sparse-rs{QUERIES}")
"""Random searches; each threat has one at most."""


@dataclass(frozen=True, kw_only=True)
class ControlResult:
    """The examples that the control broke, and its outcome as records keep it."""

    masks: Control
    outcome: Outcome


def run_control(
    evidence: Evidence, attacks: AttackColumns, clean: AttackVerdicts, count: int
) -> ControlResult | None:
    """Run the control on examples that stood, drawn by a keyed order; None: there are none.

    Args:
        attacks: runs attacks on the examples of the evaluation.
        clean: the verdicts on the clean images.
        count: the number of examples to try, or all that stood if there are fewer.
    """
    own, parts = attacks.context, (CORNER, *SEARCHES, TARGETED)
    able = [each for each in parts if _fits(each, own.threat, evidence.classes)]
    tried = _drawn(evidence.standing, count, own.noise.seed)
    if not tried.any() or CORNER not in able:
        return None
    attack = Ensemble(of=tuple(able))
    params = ATTACKS.describe(attack)
    threat = own.threat.shrunk(INSIDE)
    point = SweepPoint("control", attack, threat, params)
    # No budget is spent on it: it is a small part of what the attacks took.
    context = replace(own, noise=own.noise.fork("control"), allowance=Allowance())
    column, seconds = attacks.fill("control", point, clean, among=tried, context=context)
    members = [stage.member for stage in attack.stages(threat, evidence.classes)]
    by = column.arrays["by"]
    which = np.array(members)[by]  # what stands is told apart by its number below 0
    broken = {each: tried & (by >= 0) & (which == each) for each in dict.fromkeys(members)}
    counts = {member: int(rows.sum()) for member, rows in broken.items()}
    left = int(tried.sum()) - sum(counts.values())
    outcome = Outcome(
        params=params,
        n=int(tried.sum()),
        correct=left,
        robust_accuracy=left / int(tried.sum()),
        forwards=int(column.arrays["forwards"].sum()),
        backwards=int(column.arrays["backwards"].sum()),
        seconds=seconds,
        broken_by=counts,
        stages=members,
    )
    none = np.zeros_like(tried)
    search = np.any([broken.get(each, none) for each in SEARCHES], axis=0)
    corners, targeted = broken[CORNER], broken.get(TARGETED, none)
    return ControlResult(
        masks=Control(tried=tried, corners=corners, search=search, targeted=targeted),
        outcome=outcome,
    )


def attack_again(
    todo: Sequence[SweepPoint],
    columns: Mapping[str, AttackVerdicts],
    attacks: AttackColumns,
    clean: AttackVerdicts,
) -> list[AttackedAgain]:
    """Attack some examples anew under the largest radius of a sweep over eps.

    A sweep does not attack what a smaller radius has broken already, so it could not see an attack
    that fails when it may do more.

    Args:
        todo: the points of the evaluation.
        columns: the verdicts under each of them, merged over processes, by label.
        attacks: runs attacks on the examples of the evaluation.
        clean: the verdicts on the clean images.
    """
    found: list[AttackedAgain] = []
    swept = [point for point in todo if point.eps is not None and not point.attack.minimal]
    for point in swept:
        same = [each for each in swept if each.attack is point.attack]
        if point is not same[-1] or len(same) < 2:
            continue
        before = columns[point.label]
        inherited = before.broken & (before.arrays["stages"] == 0)
        tried = _drawn(inherited, AGAIN_TRIED, attacks.context.noise.seed)
        name = f"again{len(found)}"
        # As the sweep's own columns, on the model that those were searched on.
        column, _ = attacks.fill(name, point, clean, among=tried)
        stood = int((tried & ~column.broken).sum())
        labels = [each.label for each in same]
        count = int(tried.sum())
        found.append(AttackedAgain(label=point.label, points=labels, tried=count, stood=stood))
    return found


def _fits(name: str, threat: Threat, classes: int) -> bool:
    attack = ATTACKS.build(Spec.parse(name))
    return threat.norm in attack.measures and classes >= attack.needs


def _drawn(rows: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Return ``count`` of these examples, a mask (N), drawn in an order that the seed decides."""
    places = rows.nonzero()[0]
    order = torch.randperm(len(places), generator=stream_generator(seed, "control")).numpy()
    drawn = np.zeros(len(rows), bool)
    drawn[places[order[:count]]] = True
    return drawn
