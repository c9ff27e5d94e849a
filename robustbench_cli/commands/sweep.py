"""What is measured in one evaluation: each attack, at each point of a sweep."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from robustbench_cli.attacks import ATTACKS, Attack, Iterated
from robustbench_cli.config.schema import EvalConfig
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.threat import Threat
from robustbench_cli.core.threat_text import format_eps
from robustbench_cli.evaluation.stages import AttackVerdicts


@dataclass(frozen=True)
class SweepPoint:
    """One column of the evaluation."""

    label: str
    attack: Attack
    threat: Threat
    params: dict[str, Any]
    eps: float | None = None
    """The radius, in a sweep over it; 0 stands for the clean images."""
    weaker: int | None = None
    """The position of a column whose successes are successes here, too."""
    within: int | None = None
    """The position of a column that already holds the answer: a longer walk, or the nearest image,
    whatever the radius."""
    until: int | None = None
    """After how many steps of that walk this one ends; the session knows whether the walk's first
    success is all that decides."""


def points(attacks: Mapping[str, Attack], config: EvalConfig) -> list[SweepPoint]:
    """The columns, in the order in which they are filled."""
    found: list[SweepPoint] = []
    for label, attack in attacks.items():
        if "eps" in config.sweep:
            found += _over_eps(label, attack, config, len(found))
        elif "steps" in config.sweep:
            found += _over_steps(label, attack, config, len(found))
        else:
            found.append(SweepPoint(label, attack, config.threat, config.attack[label]))
    return found


def _over_eps(label: str, attack: Attack, config: EvalConfig, at: int) -> list[SweepPoint]:
    """From small to large: what is broken at a radius is broken at any larger one."""
    result = []
    for i, eps in enumerate(sorted({*config.sweep["eps"]})):
        threat = replace(config.threat, eps=eps) if eps else config.threat
        result.append(
            SweepPoint(
                label=f"{label}@eps={format_eps(eps)}",
                attack=attack,
                threat=threat,
                params=config.attack[label],
                eps=eps,
                weaker=at + i - 1 if i and not attack.minimal else None,
                within=at if i and attack.minimal else None,
            )
        )
    return result


def _over_steps(label: str, attack: Attack, config: EvalConfig, at: int) -> list[SweepPoint]:
    """From many to few: a walk with steps of fixed size contains every shorter one."""
    result: list[SweepPoint] = []
    for i, steps in enumerate(sorted({*config.sweep["steps"]}, reverse=True)):
        try:
            walk = replace(attack, steps=steps)  # type: ignore[call-arg]
        except ValueError as error:
            raise UserError(f"--sweep steps={steps}: attack {label!r}: {error}") from None
        longest = result[0].attack if i else walk
        contained = (
            i > 0
            and isinstance(walk, Iterated)
            and isinstance(longest, Iterated)
            and walk.nested
            and walk.stride == longest.stride
        )
        result.append(
            SweepPoint(
                label=f"{label}@steps={steps}",
                attack=walk,
                threat=config.threat,
                params=ATTACKS.describe(walk),
                within=at if contained else None,
                until=steps if contained else None,
            )
        )
    return result


def inherit(column: AttackVerdicts, weaker: AttackVerdicts) -> None:
    """Take over what a weaker threat has broken; those examples need no attack."""
    rows = (weaker.broken & ~column.broken & (column.arrays["stages"] == 0)).nonzero()[0]
    for key in ("prediction", "share", "margin", "norm", "step", "by"):
        column.arrays[key][rows] = weaker.arrays[key][rows]


def cut(
    column: AttackVerdicts, whole: AttackVerdicts, labels: np.ndarray, until: int | None, draws: int
) -> None:
    """Fill a column from the one that contains it: broken if it was broken by then."""
    for key, values in whole.arrays.items():
        column.arrays[key][:] = values
    if until is None:
        return
    late = whole.broken & (whole.arrays["step"] > until)
    column.arrays["by"][late] = column.arrays["step"][late] = -1
    column.arrays["prediction"][late], column.arrays["share"][late] = labels[late], 1
    # What a survivor of so many steps costs: every look, the clean logits and the verdict.
    rest = column.arrays["by"] < 0
    for key, more in (("forwards", 2), ("backwards", 0)):
        cost = (until + 1) * draws + more
        column.arrays[key][rest] = np.minimum(whole.arrays[key][rest], cost)
