"""From the verdicts of each example to the figures of a record."""

import math
from collections import Counter

import numpy as np

from robustbench_cli.attacks import Stage
from robustbench_cli.attacks._base import ENOUGH_CLASSES
from robustbench_cli.audit import JudgedAttack
from robustbench_cli.commands.sweep import SweepPoint
from robustbench_cli.core.robust_shares import bounded_shares, nearest_shares
from robustbench_cli.data import Split
from robustbench_cli.evaluation.stages import AttackVerdicts
from robustbench_cli.runs.outcomes import Outcome

_KEPT = ("prediction", "norm", "step", "by", "forwards", "backwards", "share", "target")
"""The arrays (N) that ``examples.npz`` holds for each attack; ``target`` where it has one."""
OPEN = "open"
"""The name of the array (N) that says on which examples a budget has left something open."""
REPORTED = "reported/"
"""What the names of an attack's own numbers begin with, among the arrays of its column (N)."""


def fill_unattacked(
    column: AttackVerdicts, right: np.ndarray, clean: AttackVerdicts, labels: np.ndarray
) -> None:
    """Fill in the examples on which no stage of an attack was run.

    Where the model is wrong about the clean image, that verdict stands; where there is nothing to
    attack with (eps 0, or no stage), the prediction is the label.

    Args:
        column: the verdicts under the attack (N), changed in place.
        right: bool (N), whether the model is right about the clean image.
        clean: the verdicts on the clean images (N).
        labels: (N).
    """
    a = column.arrays
    untouched = a["stages"] == 0
    wrong = ~right & untouched
    for key in ("prediction", "share"):
        a[key][wrong] = clean.arrays[key][wrong]
    spared = right & untouched & ~column.broken  # eps 0, or no stage at all
    a["prediction"][spared], a["share"][spared] = labels[spared], clean.arrays["share"][spared]


def robust_share(point: SweepPoint, column: AttackVerdicts, clean: AttackVerdicts) -> np.ndarray:
    """Return how often each example is classified correctly, clean and under the attack (N).

    The share is 0 or 1, or for a randomised model one in between, over its draws.  A minimal-norm
    attack counts where its distance is within the radius.
    """
    right = clean.arrays["share"]
    if point.attack.minimal:
        eps = point.threat.eps if point.eps is None else point.eps
        return nearest_shares(right, column.broken, column.arrays["norm"], eps)
    return bounded_shares(right, column.arrays["share"])


def summarize_attack(
    point: SweepPoint,
    stages: list[Stage],
    column: AttackVerdicts,
    clean: AttackVerdicts,
    seconds: float,
    rejects_as: int | None = None,
    classes: int = ENOUGH_CLASSES,
) -> Outcome:
    """Return the figures of one attack, as its record keeps them.

    Args:
        stages: of the attack, in order.
        column: the verdicts under the attack (N).
        clean: the verdicts on the clean images (N).
        seconds: that the attack took, over all processes.
        rejects_as: the prediction that stands for a rejection; None: nothing is rejected.
        classes: the number of classes.
    """
    share = robust_share(point, column, clean)
    a, n = column.arrays, len(share)
    tried = clean.arrays["share"] > 0
    members = [stage.member for stage in stages]
    by = Counter(members[stage] for stage in a["by"][column.broken])
    several = len({*members}) > 1
    median = float(np.median(a["norm"][tried])) if point.attack.minimal and tried.any() else None
    random = bool(((share > 0) & (share < 1)).any())
    deviation = 1.645 * math.sqrt(float((share * (1 - share)).sum())) / max(1, n)
    mean = float(share.mean(dtype=float))
    # What is read off a longer attack has no image of its own at its end.
    own = rejects_as is not None and (point.within is None or point.until is None)
    rejected = (a["prediction"] == rejects_as) & (share > 0)
    return Outcome(
        params=point.params,
        n=n,
        correct=int((share > 0.5).sum()),
        robust_accuracy=mean,
        forwards=int(a["forwards"].sum()),
        backwards=int(a["backwards"].sum()),
        seconds=seconds,
        eps=point.eps,
        broken_by={member: by[member] for member in members} if several else {},
        stages=members if several else [],
        minimal=point.attack.minimal,
        median_norm=median if median is not None and math.isfinite(median) else None,
        majority_accuracy=float((share > 0.5).mean()) if random else None,
        rejected=float(rejected.mean()) if own else None,
        fooling_rate=_fooling_rate(share, clean) if point.attack.fits else None,
        spread=(mean - deviation, mean + deviation) if random else None,
        variant=point.attack.variant(point.threat, classes),
    )


def _fooling_rate(share: np.ndarray, clean: AttackVerdicts) -> float | None:
    """Return the share of the examples that are right as they are which an attack breaks.

    Args:
        share: how often each example is right under the attack (N).
        clean: the verdicts on the clean images (N).
    """
    right = clean.arrays["share"] > 0
    return float(1 - share[right].mean(dtype=float)) if right.any() else None


def example_arrays(columns: dict[str, AttackVerdicts], data: Split) -> dict[str, np.ndarray]:
    """Return the arrays of ``examples.npz``, N each: ``LABEL/KEY`` per attack, and of the images.

    ``index`` is the position in the test split, ``label`` the class, and ``name`` the file that an
    image comes from, where it comes from one.
    """
    arrays = {
        "index": data.ids.cpu().numpy().astype(np.int32),
        "label": data.y.cpu().numpy().astype(np.int32),
    }
    arrays |= {"name": np.array(data.names)} if data.named else {}
    for label, column in columns.items():
        arrays |= {
            f"{label}/{key.removeprefix(REPORTED)}": a
            for key, a in column.arrays.items()
            if key in _KEPT or key.startswith(REPORTED)
        }
        arrays |= {f"{label}/{OPEN}": column.undecided} if column.pending else {}
    return arrays


def judged_attack(
    point: SweepPoint, column: AttackVerdicts, clean: AttackVerdicts, classes: int
) -> JudgedAttack:
    """Return the verdicts under one attack as checks look at them.

    Args:
        column: the verdicts under the attack.
        clean: those on the clean images.
        classes: the number of classes.
    """
    right, share = clean.arrays["share"] > 0, robust_share(point, column, clean)
    return JudgedAttack(
        label=point.label,
        attack=point.attack,
        stages=point.attack.stages(point.threat, classes),
        eps=point.threat.eps if point.eps is None else point.eps,
        swept=point.eps is not None or point.until is not None or point.within is not None,
        broken=right & (share < 0.5),
        share=share,
        by=column.arrays["by"],
        step=column.arrays["step"],
        tried=column.arrays["stages"],
        zero_gradient=column.arrays["flat"],
    )
