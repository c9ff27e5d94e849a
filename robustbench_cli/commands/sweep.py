"""The columns of an evaluation: each attack, at each point of a sweep over eps or steps."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from robustbench_cli.attacks import ATTACKS, Attack, Iterated
from robustbench_cli.attacks._base import ENOUGH_CLASSES
from robustbench_cli.config.schema import EvalConfig
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.threat import Threat
from robustbench_cli.core.threat_text import format_eps
from robustbench_cli.distributed import env
from robustbench_cli.evaluation.stages import AttackVerdicts


@dataclass(frozen=True)
class SweepPoint:
    """One column of an evaluation: an attack under a threat."""

    label: str
    attack: Attack
    threat: Threat
    params: dict[str, Any]
    eps: float | None = None
    """The radius, in a sweep over it; 0 stands for the clean images."""
    weaker: int | None = None
    """The position of a column under a smaller radius: what it broke is broken here, too."""
    within: int | None = None
    """The position of a column that this one can be read off: a run with more steps, or the nearest
    images, which do not depend on the radius."""
    until: int | None = None
    """The number of steps after which this one ends within that longer run.  It can be read off it
    only if the first success decides, not where the verifier or another model may differ."""


def points(attacks: Mapping[str, Attack], config: EvalConfig) -> list[SweepPoint]:
    """Return the columns in the order in which they are filled.

    Raises:
        UserError: an attack cannot have so few steps, or its tail cannot be sampled.
    """
    _check_within(config, attacks)
    found: list[SweepPoint] = []
    for label, attack in attacks.items():
        if "eps" in config.sweep:
            found += _over_eps(label, attack, config, len(found))
        elif "steps" in config.sweep:
            found += _over_steps(label, attack, config, len(found))
        else:
            found.append(SweepPoint(label, attack, config.threat, config.attack[label]))
    return found


def _check_within(config: EvalConfig, attacks: Mapping[str, Attack]) -> None:
    """Check that ``--within`` makes sense for what was asked.

    Raises:
        UserError: an attack is no series with a tail, or the tail cannot be sampled.
    """
    if config.within is None:
        return
    said = f"--within {config.within:g}"
    if env.world() > 1:
        raise UserError(f"{said} draws among all images: run it without torchrun")
    for option, given in {"--sweep": config.sweep, "--source": config.source}.items():
        if given:
            raise UserError(f"{said} goes without {option}")
    for label, attack in attacks.items():
        stages = attack.stages(config.threat, ENOUGH_CLASSES)
        if config.widen and attack.target is None:
            continue
        if attack.target is not None or attack.first_members(stages) is None:
            raise UserError(
                f"{said} is for autoattack and ensembles without a target; {label!r} is no such "
                "series: evaluate it by itself, or add --widen"
            )


def _over_eps(label: str, attack: Attack, config: EvalConfig, at: int) -> list[SweepPoint]:
    """The radii from small to large: what is broken at one is broken at any larger one."""
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
                weaker=at + i - 1 if i and not (attack.minimal or attack.fits) else None,
                within=at if i and attack.minimal else None,
            )
        )
    return result


def _over_steps(label: str, attack: Attack, config: EvalConfig, at: int) -> list[SweepPoint]:
    """The numbers of steps from large to small: a ``nested`` run contains every shorter one."""
    result: list[SweepPoint] = []
    for i, steps in enumerate(sorted({*config.sweep["steps"]}, reverse=True)):
        try:
            run = replace(attack, steps=steps)  # type: ignore[call-arg]
        except ValueError as error:
            raise UserError(f"--sweep steps={steps}: attack {label!r}: {error}") from None
        longest = result[0].attack if i else run
        contained = (
            i > 0
            and isinstance(run, Iterated)
            and isinstance(longest, Iterated)
            and run.nested
            and run.stride == longest.stride
        )
        result.append(
            SweepPoint(
                label=f"{label}@steps={steps}",
                attack=run,
                threat=config.threat,
                params=ATTACKS.describe(run),
                within=at if contained else None,
                until=steps if contained else None,
            )
        )
    return result


def inherit(column: AttackVerdicts, weaker: AttackVerdicts) -> None:
    """Copy the examples that a weaker threat has broken, so that they are not attacked again."""
    rows = (weaker.broken & ~column.broken & (column.arrays["stages"] == 0)).nonzero()[0]
    for key in ("prediction", "share", "margin", "norm", "step", "by"):
        column.arrays[key][rows] = weaker.arrays[key][rows]


def cut(
    column: AttackVerdicts, whole: AttackVerdicts, labels: np.ndarray, until: int | None, draws: int
) -> None:
    """Fill a column from the one that contains it.

    Args:
        column: the column to fill.
        whole: the verdicts of the run with more steps, or of the nearest images.
        labels: the true classes (N).
        until: the number of steps after which an example must be broken; None: any.
        draws: the passes per step.
    """
    for key, values in whole.arrays.items():
        column.arrays[key][:] = values
    if until is None:
        return
    late = whole.broken & (whole.arrays["step"] > until)
    column.arrays["by"][late] = column.arrays["step"][late] = -1
    column.arrays["prediction"][late], column.arrays["share"][late] = labels[late], 1
    # An example that withstands costs a pass at the start and per step, the clean logits and the
    # verdict.
    rest = column.arrays["by"] < 0
    for key, more in (("forwards", 2), ("backwards", 0)):
        cost = (until + 1) * draws + more
        column.arrays[key][rest] = np.minimum(whole.arrays[key][rest], cost)
